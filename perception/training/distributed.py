"""Several processes that train one model, started by `torchrun`: who is there, and what they tell each other.

A rank is one of these processes.  Each computes the outputs of its share of a batch.  Then they are brought
together, so that every rank holds the outputs of the whole batch and computes the very loss that one process
would, whatever it divides by.  Its gradients go back through the rank's own share alone, and are averaged.
Weights, average and optimizer are the same everywhere; rank 0 writes.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous
from torch.utils._pytree import tree_leaves, tree_map

from perception.errors import ConfigError, LostRankError
from perception.files.stopping import unstopped
from perception.models.interface import ModelOutput

T = TypeVar("T")

_FAILED = "anysense/failed"
_stores: list[
    dist.Store
] = []  # where the ranks met; torchrun keeps it, so that it outlives every rank
_LONGEST_REASON = 160


@dataclass(frozen=True)
class Ranks:
    """The processes that train together.

    What needs all of them (`heard`, `told`, `mean`, `most`, `whole`, `rows`, `same`) has to be called by all,
    in the same order; each raises `LostRankError` where another has ended.

    Attributes:
        rank: of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there is anybody else."""
        return self.size > 1

    def share(self, count: int) -> range:
        """Which of `count` things are this rank's."""
        return range(self.rank, count, self.size)

    def heard(self, value: Any) -> list[Any]:
        """What every rank says, in their order; it is pickled."""
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.size
        with _reaching():
            dist.all_gather_object(found, value)
        return found

    def told(self, value: T) -> T:
        """What rank 0 says."""
        if not self.several:
            return value
        found = [value]
        with _reaching():
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Bring every tensor to its mean over the ranks, which have them in the same shapes and order."""
        if not (self.several and tensors):
            return
        together = torch.cat([t.detach().reshape(-1).float() for t in tensors])
        with _reaching():
            dist.all_reduce(together)
        together /= self.size
        parts = together.split([t.numel() for t in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def most(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each number over the ranks."""
        if not self.several:
            return list(numbers)
        found = torch.tensor(numbers)
        with _reaching():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return [int(n) for n in found.tolist()]

    def whole(self, output: ModelOutput, frames: int) -> ModelOutput:
        """The output for a whole batch, of what each rank's share of it gave.

        Values, auxiliary logits and taps have a frame in each row; scalars are averaged.

        Args:
            output: of this rank's share, tensors (n, ...), n alike on all ranks.
            frames: of the batch; rows beyond are of frames that only filled a share up.

        Raises:
            ConfigError: a tensor has other rows.
        """
        if not self.several:
            return output
        rows = next(iter(_tensors(output.values))).shape[0]

        def gathered(value: Any) -> Any:
            return _gathered(value, self, frames, rows) if isinstance(value, Tensor) else value

        return ModelOutput(
            tree_map(gathered, output.values),
            tree_map(gathered, output.aux),
            tree_map(gathered, output.taps),
        )

    def rows(self, tensor: Tensor, frames: int) -> Tensor:
        """The rows of the whole batch, of one tensor that has those of this rank's share; see `whole`."""
        return _gathered(tensor, self, frames, tensor.shape[0]) if self.several else tensor

    def same(self, value: Any, what: str, where: str = "") -> None:
        """Require that all ranks have the same.

        Raises:
            ConfigError: says of what, and which rank has another.
        """
        if not self.several:
            return
        digests = self.heard(hashlib.sha256(repr(value).encode()).hexdigest())
        other = next((r for r, digest in enumerate(digests) if digest != digests[0]), None)
        if other is not None:
            raise ConfigError(
                f"rank {other} has other {what} than rank 0",
                where=where,
                hint="every host needs the same configuration, and the same data under the same paths",
            )

    def until_agreed(self) -> AbstractContextManager[None]:
        """Signals wait within it: ranks that stop at different steps would wait for each other."""
        return unstopped() if self.several else nullcontext()


ALONE = Ranks()


def here() -> Ranks:
    """The processes that train with this one."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Ranks(dist.get_rank(), dist.get_world_size())


def launched() -> bool:
    """Whether `torchrun` started this process as one of several."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return False
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def local_rank() -> int:
    """Which of the processes on this host this is: the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def join() -> Ranks:
    """Meet the other processes, where `torchrun` started several.

    Raises:
        LostRankError: they cannot be reached.
    """
    if launched() and not dist.is_initialized():
        # Its functions take the group of their day as a default.  Imported later, by the optimizer, they
        # would keep it beyond `leave`: its threads, which drop tensors, outlive the interpreter and abort.
        importlib.import_module("torch.distributed.nn")
        kind = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with _reaching():
            store, rank, size = next(rendezvous("env://"))
            dist.init_process_group(kind, store=store, rank=rank, world_size=size)
        _stores.append(store)
        cv2.setNumThreads(torch.get_num_threads())  # else each would take all cores
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    return here()


def leave() -> None:
    """Part from the others; no thread of the group is left."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        _stores.clear()


def may_speak() -> bool:
    """Whether this process is to say why all of them end: the first one that asks."""
    if not _stores:
        return True
    try:
        return int(_stores[0].add(_FAILED, 1)) == 1
    except RuntimeError:  # the host that keeps it is gone
        return True


@contextmanager
def _reaching() -> Iterator[None]:
    """Around what needs the other processes."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0][:_LONGEST_REASON]
        raise LostRankError(
            f"another process of this training has ended or does not answer: {reason}",
            hint="--resume goes on, with any number of processes",
        ) from error


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _gathered(tensor: Tensor, ranks: Ranks, frames: int, rows: int) -> Tensor:
    if not tensor.ndim:
        return _Mean.apply(tensor, ranks)  # type: ignore[no-any-return, no-untyped-call]
    if tensor.shape[0] != rows:
        raise ConfigError(
            f"the model gives a tensor of {tuple(tensor.shape)} for {rows} frames: it cannot be trained by "
            "several processes",
            where="model.name",
            hint="start it without torchrun",
        )
    return _Rows.apply(tensor, ranks, frames)  # type: ignore[no-any-return, no-untyped-call]


class _Rows(torch.autograd.Function):
    """The rows of all ranks.

    Every rank computes the same loss of them.  Its own share of the gradient, times the number of ranks, is
    what their mean needs: parameters that a loss uses directly have the whole gradient on each rank.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks, frames: int) -> Tensor:
        ctx.ranks, ctx.shape = ranks, own.shape
        own = own.contiguous()
        sent = own.view(torch.uint8) if own.dtype == torch.bfloat16 else own
        parts = [torch.empty_like(sent) for _ in range(ranks.size)]
        with _reaching():
            dist.all_gather(parts, sent)
        return torch.cat(parts).view(own.dtype)[:frames]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        own = gradients[0].new_zeros(ctx.shape)
        start = ctx.ranks.rank * len(own)
        share = gradients[0][start : start + len(own)]
        own[: len(share)] = share * ctx.ranks.size
        return own, None, None


class _Mean(torch.autograd.Function):
    """The mean of a scalar over the ranks."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks) -> Tensor:
        mean = own.clone()
        ranks.mean([mean])
        return mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None
