"""PillarBEV: boxes in space from any subset of LiDARs, depth cameras and cameras, on a grid on the ground.

Points become pillars whose learned features are scattered onto the grid (Lang et al., "PointPillars", CVPR
2019).  Pictures become maps that are looked up at the pixels in which each cell is seen at several heights
(Harley et al., "Simple-BEV", ICRA 2023); where these are, calibration says, not the network.  Of each pixel
the network estimates how far away it is, as the LiDAR of the training data tells it ("BEVDepth", Li et al.,
AAAI 2023), and what it sees counts in the cells at that distance.
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
from perception.geometry.lifting import RAY_VALUES
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

POINT_VALUES = 8
"""Of a point in a pillar: x, y, z, intensity, offsets from the cell's centre and the mean z, 1."""

_LEAST_WEIGHT = 1e-4

_MIDDLE = 2.5  # logarithm of a usual distance in metres
_LEAST_SIGMA, _MOST_SIGMA = 0.02, 1.5  # of that logarithm
_PIXELS, _OF_NOTHING, _FEW_PIXELS = 0.5, 0.5, 20.0


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
                channels, heights = spec.tensors["image"].shape[0], spec.tensors["table"].shape[0]
                classes = self.classes_of(BOXES3D.name)
                made = CameraEncoder(channels, heights, classes, width, camera)
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

    def supervise(self, output: ModelOutput, features: Mapping[str, Features]) -> None:
        """Keep what is to be learned of pixels, where the batch tells it."""
        off = [own["off"] for own in features.values() if "off" in own]
        if off:
            output.taps["pixels"] = torch.stack(off).mean()

    def losses(self, output: ModelOutput, truths: Mapping[str, Any]) -> dict[str, Tensor]:
        """`pixels`: how wrong cameras' encoders are in where the pixels' things stand and what they are."""
        return {"pixels": output.taps["pixels"]} if "pixels" in output.taps else {}


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
        classes: of things.
        width: channels of the map.
        factor: by what inner channels are multiplied.
    """

    middle: Tensor
    spread: Tensor

    def __init__(
        self, channels: int, heights: int, classes: int, width: int, factor: float = 1.0
    ) -> None:
        super().__init__()
        for name, values in (("middle", (0.0, 3.5, 0.5)), ("spread", (0.5, 1.6, 1.0))):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        two, four, eight, sixteen, own = (
            max(8, round(c * factor / 8) * 8) for c in (16, 32, 48, 96, 32)
        )
        self.stem = nn.Sequential(Block(channels, two, stride=2), Block(two, four, stride=2))
        self.four = Residual(four)
        self.eight = nn.Sequential(Block(four, eight, stride=2), Residual(eight), Residual(eight))
        self.sixteen = nn.Sequential(
            Block(eight, sixteen, stride=2), Residual(sixteen), Residual(sixteen)
        )
        self.from_sixteen = Block(sixteen, eight, 1)
        self.from_eight = Block(eight, own, 1)
        self.from_four = Block(four, own, 1)
        self.join = nn.Sequential(Block(own + RAY_VALUES, own), Residual(own))
        # Of each pixel: distance, how sure, and what it is; and what else matters.
        self.pixel = nn.Sequential(Block(own, own), nn.Conv2d(own, 2 + classes + 1, 1))
        self.picture = Block(own, width // 2, 1)
        self.through = nn.Parameter(torch.full((1, 1, width // 2, 1), -2.0))
        self.lift = Block(heights * (width // 2 + classes + 1), width, 1)

    def forward(self, tensors: Mapping[str, Tensor]) -> Features:
        """`image` (N, C, H, W), `ranges` (N, rows, columns), `rays` (N, 3, H/4, W/4) float32, `table`
        (N, Z, rows, columns) int32; see the kinds' records.

        Where `pixels` (N, 2, H/4, W/4) are there, the features hold `off` (N,), too: see `pixel_loss`.
        """
        fine = self._fine(tensors["image"], tensors["rays"])
        guess = self.pixel(fine)
        at = _MIDDLE + guess[:, :1]
        sigma = _LEAST_SIGMA + (_MOST_SIGMA - _LEAST_SIGMA) * guess[:, 1:2].sigmoid()
        kinds = guess[:, 2:]
        told = torch.cat([self.picture(fine), kinds.softmax(1)[:, 1:], at, 1 / sigma], 1)
        bev, seen = self._lifted(told, tensors["table"], tensors["ranges"])
        found = {"bev": self.lift(bev) * seen, "seen": seen}
        if "pixels" in tensors:
            found["off"] = pixel_loss(at, sigma, kinds, tensors["pixels"])
        return found

    def _fine(self, image: Tensor, rays: Tensor) -> Tensor:
        """A map at stride 4 that knows its surroundings and where it looks."""
        four = self.four(self.stem(image))
        eight = self.eight(four)
        eight = eight + upsample(self.from_sixteen(self.sixteen(eight)))
        fine = self.from_four(four) + upsample(self.from_eight(eight))
        return self.join(torch.cat([fine, (rays - self.middle) / self.spread], 1))

    def _lifted(self, told: Tensor, table: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor]:
        """What pixels say of the cells at `OUTPUT_STRIDE` at all heights, and of which cells."""
        ranges = _coarser(ranges[:, None].expand(-1, table.shape[1], -1, -1))
        table = _coarser(table)
        batch, channels, height, width = told.shape
        batch, heights, rows, columns = table.shape
        # In numbers that compute: backends are wary of arithmetic with integers.
        seen = (table.float() < height * width).to(told.dtype).amax(1, keepdim=True)
        places = torch.cat([told.flatten(2).transpose(1, 2), told.new_zeros(batch, 1, channels)], 1)
        index = _flat(table.flatten(1), places.shape[1])
        found = places.reshape(-1, channels).index_select(0, index)
        found = found.reshape(batch, heights, rows * columns, channels).transpose(2, 3)
        off = (ranges.reshape(batch, heights, 1, -1) - found[:, :, -2:-1]) * found[:, :, -1:]
        near = torch.exp(-0.5 * (off * off).clamp(max=60.0))
        passed, what = self.through.sigmoid(), self.through.shape[2]
        general = found[:, :, :what] * (passed + (1 - passed) * near)
        here = torch.cat([general, found[:, :, what:-2] * near, near], 2)
        return here.reshape(batch, -1, rows, columns), seen


def pixel_loss(at: Tensor, sigma: Tensor, kinds: Tensor, truth: Tensor) -> Tensor:
    """How wrong a picture's encoder is, (N,).

    Args:
        at, sigma: (N, 1, h, w) expected logarithm of distances, and how unsure it is.
        kinds: (N, 1 + classes, h, w) logits of nothing in particular and the classes.
        truth: (N, 2, h, w) logarithm of distances, of things those of their middles; and 0 for what is not
            known, 1 for nothing in particular, 2 and more for the classes.
    """
    where, what = truth[:, :1], truth[:, 1].long()
    at, sigma, kinds = at.float(), sigma.float(), kinds.float()
    # Laplace: what is far off, at the edges of things, shall not decide.
    miss = (where - at).abs() / sigma + sigma.log()
    name = F.cross_entropy(kinds, (what - 1).clamp(min=0), reduction="none")[:, None]
    total = at.new_zeros(len(at))
    for mask, share in ((what == 1, _OF_NOTHING), (what > 1, 1.0)):
        counted = mask[:, None].to(at.dtype)
        sums = ((miss + name) * counted).sum((1, 2, 3))
        total = total + share * sums / counted.sum((1, 2, 3)).clamp(min=_FEW_PIXELS)
    return _PIXELS * total


def _flat(index: Tensor, places: int) -> Tensor:
    """Indices (N, L) of so many places of each sample as (N * L,) of those of all samples.

    They are kept within these places, so that graphs can be given to backends that do not look.
    """
    found = index.long().clamp(0, places - 1)
    if len(index) > 1:
        found = found + torch.arange(len(index), device=index.device)[:, None] * places
    return found.reshape(-1)


def _coarser(table: Tensor) -> Tensor:
    """What is told of cells, at `OUTPUT_STRIDE`: every other height of one cell, the rest of another.

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
