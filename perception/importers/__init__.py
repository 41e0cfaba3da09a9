"""Data sets of other people's formats, taken over as recordings of our own folder format: one file each.

A file here says what a data set holds (`source.Source`); how many frames are taken, what classes are called,
how frames are split and how files get to their place is done once, for all, in `taking`.
"""
