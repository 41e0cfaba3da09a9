"""PillarBEV: boxes in space from any subset of LiDARs, depth cameras and cameras, on a grid on the ground.

Points become pillars whose learned features are scattered onto the grid (Lang et al., "PointPillars", CVPR
2019).  Pictures become maps at stride 8 that are looked up at the pixels in which each cell is seen at
several heights (Harley et al., "Simple-BEV", ICRA 2023); where these are, calibration says, not the network.
What the inputs say of a cell is summed with weights of those that are there and see it (Wang et al.,
"UniBEV", 2023).  A small pyramid and heads for the centres of objects follow (Yin et al., "Center-based 3D
Object Detection and Tracking", CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.errors import ConfigError
from perception.frame import KINDS
from perception.geometry.grid import BirdseyeSpec
from perception.models.heads import WithHeads
from perception.models.interface import (
    Features,
    FusionModel,
    ModelCard,
    ModelOutput,
    Present,
)
from perception.models.layers import upsample
from perception.tasks.boxes3d import BOXES3D

OUTPUT_STRIDE = 2
"""Cells of the ground grid along each side of one that the network answers for."""

TABLE_STRIDE = 8
"""Of the map of a picture that cells are looked up in."""

POINT_VALUES = 8
"""Of a point in a pillar: x, y, z, intensity, offsets from the cell's centre and the mean z, 1."""

_LEAST_WEIGHT = 1e-4


class PillarBEV(FusionModel):
    """See the module.  Every input has a view with `birdseye`; tensors are those of the kinds' records.

    Features of each encoder are `bev` (N, width, rows/2, columns/2) and `seen` (N, 1, rows/2, columns/2),
    0 where it sees nothing of a cell and 1 where it does.
    """

    card = ModelCard(
        kind="bird's-eye fusion",
        source="AnySense, after PointPillars (2019), CenterPoint (2021), Simple-BEV and UniBEV (2023)",
        tasks=(BOXES3D.name,),
        published_weights=False,
        reference=(KINDS[0], KINDS[-1]),
        ground=True,
    )
    feature_names = ("bev", "seen")
    shared_part = "neck"
    head_parts = ("heads",)

    def build(self, width: int = 48, camera: float = 1.0) -> None:
        """Make the layers.

        Args:
            width: channels on the ground.
            camera: by what the channels of the cameras' encoder are multiplied.

        Raises:
            ConfigError: an input has no `birdseye`.
        """
        ground = self.inputs.birdseye
        if ground is None:
            raise ConfigError(
                "the model needs a grid on the ground",
                where="preprocess",
                hint="give every input view.birdseye (points: view.type: birdseye, too)",
            )
        self.ground = ground
        for task, own in list(self.tasks.items()):
            self.tasks[task] = own.model_copy(update={"birdseye": ground})
        for name, spec in self.inputs.items():
            encoder = self.encoder_of[name]
            if encoder in self.encoders:
                continue
            made: nn.Module
            if "pillars" in spec.tensors:
                made = PillarEncoder(ground, width)
            else:
                channels = spec.tensors["image"].shape[0]
                made = CameraEncoder(channels, spec.tensors["table"].shape[0], width, camera)
            self.encoders[encoder] = made
        self.mix = PresenceSum(list(self.encoders), width)
        self.neck = GroundPyramid(ground, width, len(self.encoders))
        self.heads = WithHeads()
        self.heads.add_heads(self.tasks, {OUTPUT_STRIDE: width}, width)

    def encode(self, modality: str, image: Any) -> Features:
        """Features of one input's tensors by name."""
        features: Features = self.encoders[self.encoder_of[modality]](image)
        return features

    def fuse(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """See `FusionModel`."""
        fused = self.mix(features, self.encoder_of, present)
        return ModelOutput(values=self.heads.answers({OUTPUT_STRIDE: self.neck(fused)}))


class Block(nn.Sequential):
    """Convolution 3x3 or 1x1, batch normalization, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two convolutions 3x3 around which the input goes (He et al., CVPR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_bn = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_bn(self.first(x)))
        return F.relu(x + self.second_bn(self.second(y)))


class PillarEncoder(nn.Module):
    """Pillars to a map of the ground.

    Args:
        ground: the grid.
        width: channels of the map.
        inner: channels of a pillar.
    """

    middle: Tensor
    spread: Tensor

    def __init__(self, ground: BirdseyeSpec, width: int, inner: int = 32) -> None:
        super().__init__()
        self.rows, self.columns = ground.shape
        # Points are told apart by values of about one, whatever the grid's size.
        ranges, half = (ground.x, ground.y, ground.z), ground.cell_m / 2
        middle = [*((low + high) / 2 for low, high in ranges), 0.5, 0.0, 0.0, 0.0, 0.0]
        spread = [*((high - low) / 2 for low, high in ranges), 0.5, half, half, 1.0, 1.0]
        self.register_buffer("middle", torch.tensor(middle), persistent=False)
        self.register_buffer("spread", torch.tensor(spread), persistent=False)
        self.point = nn.Sequential(
            nn.Linear(POINT_VALUES, inner), nn.ReLU(), nn.Linear(inner, inner), nn.ReLU()
        )
        self.pillar = nn.Sequential(nn.Linear(inner, inner), nn.ReLU())
        self.down = Block(inner, width, stride=OUTPUT_STRIDE)
        self.refine = Block(width, width)

    def forward(self, tensors: Mapping[str, Tensor]) -> Features:
        """`pillars` (N, P, M, 8) float32 and `cells` (N, P) int32; see the kinds' records."""
        points = tensors["pillars"]
        there = points[..., -1:]
        values = (points - self.middle) / self.spread
        found = (self.point(values) * there).amax(2)  # of ReLU: 0 is the least
        canvas = self._scattered(self.pillar(found), tensors["cells"])
        bev = self.refine(self.down(canvas))
        # Everywhere, as of a ReLU; computed, since backends differ in what they do with constant outputs.
        return {"bev": bev, "seen": (bev[:, :1] >= 0).to(bev.dtype)}

    def _scattered(self, pillars: Tensor, cells: Tensor) -> Tensor:
        """(N, P, C) at the cells of the grid, (N, C, rows, columns); unused pillars fall beside it."""
        batch, _, channels = pillars.shape
        places = self.rows * self.columns + 1
        index = _flat(cells, places)
        canvas = pillars.new_zeros(batch * places, channels)
        canvas = canvas.index_put((index,), pillars.reshape(-1, channels))
        kept = canvas.reshape(batch, places, channels)[:, :-1]
        return kept.transpose(1, 2).reshape(batch, channels, self.rows, self.columns)


class CameraEncoder(nn.Module):
    """Pictures to a map of the ground, through a table of pixels.

    Args:
        channels: of the picture.
        heights: above each cell, that the table tells pixels of.
        width: channels of the map.
        factor: by what inner channels are multiplied.
    """

    def __init__(self, channels: int, heights: int, width: int, factor: float = 1.0) -> None:
        super().__init__()
        two, four, eight, context = (max(8, round(c * factor / 8) * 8) for c in (16, 24, 48, 80))
        self.stem = nn.Sequential(Block(channels, two, stride=2), Block(two, four, stride=2))
        self.body = nn.Sequential(
            Residual(four), Block(four, eight, stride=2), Residual(eight), Residual(eight)
        )
        self.context = nn.Sequential(Block(eight, context, stride=2), Residual(context))
        self.around = Block(context, eight, 1)
        self.picture = Block(eight, width // 2, 1)
        self.lift = Block(heights * (width // 2), width, 1)
        self.refine = Block(width, width)

    def forward(self, tensors: Mapping[str, Tensor]) -> Features:
        """`image` (N, C, H, W) float32 and `table` (N, Z, rows, columns) int32; see the kinds' records."""
        fine = self.body(self.stem(tensors["image"]))
        fine = self.picture(fine + upsample(self.around(self.context(fine))))
        table = _coarser(tensors["table"])
        batch, channels, height, width = fine.shape
        batch, heights, rows, columns = table.shape
        # In numbers that compute: backends are wary of arithmetic with integers.
        seen = (table.float() < height * width).to(fine.dtype).amax(1, keepdim=True)
        places = torch.cat([fine.flatten(2).transpose(1, 2), fine.new_zeros(batch, 1, channels)], 1)
        index = _flat(table.flatten(1), places.shape[1])
        found = places.reshape(-1, channels).index_select(0, index)
        found = found.reshape(batch, heights, rows * columns, channels).transpose(2, 3)
        bev = self.refine(self.lift(found.reshape(batch, -1, rows, columns)) * seen)
        return {"bev": bev, "seen": seen}


def _flat(index: Tensor, places: int) -> Tensor:
    """Indices (N, L) of so many places of each sample as (N * L,) of those of all samples.

    They are kept within these places, so that graphs can be given to backends that do not look.
    """
    found = index.long().clamp(0, places - 1)
    if len(index) > 1:
        found = found + torch.arange(len(index), device=index.device)[:, None] * places
    return found.reshape(-1)


def _coarser(table: Tensor) -> Tensor:
    """A table of the cells at `OUTPUT_STRIDE`: every other height of one cell, the rest of another.

    (N, Z, rows, columns) to (N, Z, rows/2, columns/2).
    """
    step = OUTPUT_STRIDE
    parts = [table[:, k::step, k::step, k::step] for k in range(min(step, table.shape[1]))]
    return torch.cat(parts, 1)


class PresenceSum(nn.Module):
    """What inputs say of each cell, by learned weights per encoder and channel of those that see it.

    Weights of absent inputs are removed by selection and the rest add up to one (UniBEV's channel normalized
    weights, without its softmax over a fixed set), so that what follows meets values of one size.

    Args:
        encoders: names.
        width: channels.
    """

    def __init__(self, encoders: list[str], width: int) -> None:
        super().__init__()
        self.encoders = encoders
        self.weight = nn.ParameterDict({e: torch.zeros(1, width, 1, 1) for e in encoders})

    def forward(
        self, features: Mapping[str, Features], encoder_of: Mapping[str, str], present: Present
    ) -> Tensor:
        """The sum, and after its channels one for each encoder: 1 where one of its inputs sees the cell."""
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for name, own in features.items():
            bev, seen, encoder = own["bev"], own["seen"], encoder_of[name]
            if present is not None:
                bev = torch.where(present[name], bev, 0.0)
                seen = torch.where(present[name], seen, 0.0)
            maps, count = bev * seen, seen
            if encoder in sums:
                maps, count = maps + sums[encoder][0], count + sums[encoder][1]
            sums[encoder] = maps, count
        # Inputs of one encoder have one weight: their sums are weighted, not each of them.
        weights = {e: self.weight[e].exp().to(maps.dtype) for e, (maps, _) in sums.items()}
        total = reduce(torch.add, [weights[e] * maps for e, (maps, _) in sums.items()])
        mass = reduce(torch.add, [weights[e] * count for e, (_, count) in sums.items()])
        nothing = torch.zeros_like(next(iter(sums.values()))[1])
        covered = [sums[e][1].clamp(max=1.0) if e in sums else nothing for e in self.encoders]
        return torch.cat([total / mass.clamp(min=_LEAST_WEIGHT), *covered], 1)


class GroundPyramid(nn.Module):
    """A map of the ground seen at three scales.

    Args:
        ground: the grid.
        width: channels of the map that comes in and goes out.
        extra: further channels that come in.
    """

    place: Tensor

    def __init__(self, ground: BirdseyeSpec, width: int, extra: int) -> None:
        super().__init__()
        rows, columns = (side // OUTPUT_STRIDE for side in ground.shape)
        # From where a cell is looked at, as what is seen of an object depends on it.
        reach = max(abs(v) for v in (*ground.x, *ground.y))
        x, y = (
            (low + (torch.arange(count) + 0.5) * OUTPUT_STRIDE * ground.cell_m) / reach
            for low, count in ((ground.x[0], rows), (ground.y[0], columns))
        )
        place = torch.stack(torch.meshgrid(x, y, indexing="ij"))[None]
        self.register_buffer("place", place, persistent=False)
        middle, coarse = width + width // 3, 2 * width
        self.enter = nn.Sequential(Block(width + extra + 2, width, 1), Residual(width))
        self.down = nn.Sequential(
            Block(width, middle, stride=2), Residual(middle), Residual(middle)
        )
        self.deep = nn.Sequential(
            Block(middle, coarse, stride=2), Residual(coarse), Residual(coarse)
        )
        self.from_deep = Block(coarse, middle, 1)
        self.from_down = Block(middle, width, 1)
        self.leave = Block(width, width)

    def forward(self, fused: Tensor) -> Tensor:
        """(N, width + extra, rows/2, columns/2) to (N, width, rows/2, columns/2)."""
        place = self.place.to(fused.dtype).expand(len(fused), -1, -1, -1)
        fine = self.enter(torch.cat([fused, place], 1))
        down = self.down(fine)
        down = down + upsample(self.from_deep(self.deep(down)))
        return self.leave(fine + upsample(self.from_down(down)))
