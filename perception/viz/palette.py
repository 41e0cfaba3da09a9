"""Class colors."""

from __future__ import annotations


def distinct_color(index: int) -> tuple[int, int, int]:
    """The RGB color of class `index`, by the bit-interleaving rule of the PASCAL VOC palette.

    Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit".  Index 0 of
    that palette is black, so classes start at its second entry.
    """
    code, channels = index + 1, [0, 0, 0]
    for bit in range(7, -1, -1):
        for channel in range(3):
            channels[channel] |= (code >> channel & 1) << bit
        code >>= 3
    return channels[0], channels[1], channels[2]
