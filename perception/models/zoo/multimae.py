"""MultiMAE: masked autoencoding of several modalities with one transformer.

Bachmann, Mizrahi, Atanov and Zamir, "MultiMAE: Multi-modal Multi-task Masked Autoencoders", ECCV 2022.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.models.chance import drawn
from perception.models.interface import ModelCard
from perception.models.zoo.attention import TransformerBlock, join_heads, split_heads, to_tokens
from perception.models.zoo.tokens import PATCH, SIZES, SharedTokens, position_map

VISIBLE_SHARE = 1 / 6
"""Share of all tokens that the encoder sees: the publication's 98 of 3 x 196."""
DECODER_DEPTH, DECODER_HEADS = 2, 4


class CrossAttention(nn.Module):
    """Queries ask a source of another length; both normalized first."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (channels // heads) ** -0.5
        self.norm_query, self.norm_source = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, source: Tensor) -> Tensor:
        """(N, L, C) from (N, L, C) and (N, M, C)."""
        keys, values = self.key_value(self.norm_source(source)).chunk(2, dim=-1)
        query = split_heads(self.query(self.norm_query(queries)), self.heads) * self.scale
        scores = query @ split_heads(keys, self.heads).transpose(-2, -1)
        answer = join_heads(scores.softmax(-1) @ split_heads(values, self.heads))
        out: Tensor = queries + self.project(answer)
        return out


class PatchDecoder(nn.Module):
    """Rebuilds the patches of one modality from the visible tokens of all."""

    def __init__(self, encoded: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Linear(encoded, channels)
        self.masked = nn.Parameter(torch.zeros(1, 1, channels))
        nn.init.normal_(self.masked, std=0.02)
        self.cross = CrossAttention(channels, DECODER_HEADS)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, DECODER_HEADS) for _ in range(DECODER_DEPTH)
        )
        self.leave = nn.Linear(channels, outputs * PATCH * PATCH)

    def forward(self, encoded: Tensor, own: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches (N, h * w, outputs * 256).

        Args:
            encoded: (N, V, E), all visible tokens of all modalities.
            own: (N, h * w), for each place of this modality the index of its token in `encoded`, or
                -1 where it was masked.
            grid: h, w.
        """
        source = self.enter(encoded)
        n, channels = encoded.shape[0], source.shape[-1]
        index = own.clamp(min=0)[..., None].expand(-1, -1, channels)
        queries = torch.where(own[..., None] >= 0, source.gather(1, index), self.masked)
        place = to_tokens(position_map(channels, *grid, source))
        tokens = self.cross(queries + place.expand(n, -1, -1), source)
        for block in self.blocks:
            tokens = block(tokens)
        patches: Tensor = self.leave(tokens)
        return patches


def patches_of(image: Tensor) -> Tensor:
    """(N, C, H, W) to (N, h * w, C * 256), the order of `F.unfold`."""
    return F.unfold(image, PATCH, stride=PATCH).transpose(1, 2)


def share_out(tokens: Mapping[str, int], visible: int, shares: Tensor) -> dict[str, int]:
    """How many tokens of each modality are seen: `visible` in all, by `shares`, none beyond its own.

    Args:
        tokens: how many each modality has.
        visible: how many are seen in all.
        shares: (M,) that sum to 1, in the order of `tokens`.
    """
    counts = {
        m: min(total, int(visible * share))
        for (m, total), share in zip(tokens.items(), shares.tolist(), strict=True)
    }
    # What a full modality cannot take goes to the next largest share, so that small ones stay small.
    for modality in sorted(tokens, key=lambda m: -counts[m]):
        missing = visible - sum(counts.values())
        counts[modality] += min(missing, tokens[modality] - counts[modality])
    return counts


class MultiMAE(SharedTokens):
    """The transformer that `anysense pretrain` trains to rebuild masked patches, with a head to use it.

    Args:
        inputs, tasks, pretrained, size, decoder_width: see `SharedTokens`.
        pretraining: build the decoders that masked training needs; `anysense pretrain` sets it.
    """

    card = ModelCard(
        kind="shared-token transformer, masked pre-training",
        source="Bachmann et al.: MultiMAE, ECCV 2022",
        published_weights=False,
        published_result="mIoU 56.0, NYUv2, RGB-D, ViT-B pre-trained on ImageNet",
    )

    def build(self, size: str = "tiny", decoder_width: int = 96, pretraining: bool = False) -> None:
        super().build(size, decoder_width)
        encoded = SIZES[size][0]
        inner = max(64, encoded // 3 // 16 * 16)
        self.aux_heads = nn.ModuleDict(
            {e: PatchDecoder(encoded, inner, n) for e, n in self.encoder_channels.items()}
            if pretraining
            else {}
        )

    def reconstruction_loss(
        self, inputs: Mapping[str, Tensor], generator: torch.Generator, alpha: float = 1.0
    ) -> Tensor:
        """Hide most tokens, rebuild them, and compare: the mean squared error of hidden patches.

        Args:
            inputs: (N, C, H, W) by modality.
            generator: of all random choices, on the CPU.
            alpha: concentration of the symmetric Dirichlet distribution that shares the visible
                tokens out among the modalities; one draw serves the batch.
        """
        maps = {m: self.encode(m, x)["tokens"] for m, x in inputs.items()}
        sample = next(iter(maps.values()))
        grid = (sample.shape[2], sample.shape[3])
        each, n = grid[0] * grid[1], sample.shape[0]
        shares = torch._sample_dirichlet(torch.full((len(maps),), alpha), generator)
        visible = max(len(maps), round(VISIBLE_SHARE * each * len(maps)))
        counts = share_out(dict.fromkeys(maps, each), visible, shares)
        seen, places = [], {}
        start = 0
        for modality, tokens in maps.items():
            order = drawn(lambda rows: torch.rand(rows, each, generator=generator), n)
            order = order.argsort(1).to(sample.device)
            kept = order[:, : counts[modality]]
            index = kept[..., None].expand(-1, -1, tokens.shape[1])
            seen.append(to_tokens(tokens).gather(1, index))
            where = torch.full((n, each), -1, device=sample.device)
            numbers = torch.arange(start, start + counts[modality], device=sample.device)
            places[modality] = where.scatter(1, kept, numbers.expand(n, -1))
            start += counts[modality]
        encoded = self.transformer(torch.cat(seen, dim=1))
        losses = []
        for modality, own in places.items():
            hidden = own < 0
            if not hidden.any():
                continue
            rebuilt = self.aux_heads[self.encoder_of[modality]](encoded, own, grid).float()
            wanted = patches_of(inputs[modality]).float()
            if self.kinds[modality] == "rgb":
                center, spread = wanted.mean(-1, keepdim=True), wanted.std(-1, keepdim=True)
                wanted = (wanted - center) / (spread + 1e-3)
            losses.append((rebuilt - wanted).square().mean(-1)[hidden].mean())
        return torch.stack(losses).mean()
