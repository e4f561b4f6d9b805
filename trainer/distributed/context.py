"""One training run in several processes, as torchrun starts them: one for each GPU, on one machine or on more.

Every process holds the whole network and works on its share of each step; what they learn is exchanged in each step, so
that all stay equal to the last bit. They are told apart by RANK, WORLD_SIZE and LOCAL_RANK and meet at MASTER_ADDR and
MASTER_PORT. Whoever sets these variables can start them; torchrun does.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from binwatch.errors import BinwatchError
from trainer.distributed import environment
from trainer.errors import RankError

MEETING = timedelta(minutes=10)
"""How long the processes wait for each other at the start: machines of a cluster do not boot at the same moment."""
TIMEOUT = timedelta(hours=12)
"""Of an exchange. Long: one may compute features for hours while others wait, and a death is noticed without it."""
FAILED = "failed"
"""Key under which the first process that fails leaves its number, so that it alone says why all end."""
NEVER = "never"
"""Key that no one sets."""
GRACE = timedelta(seconds=10)
"""How long a process outlives the one that failed first, if no one ends it."""


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process among the `world_size` processes of a run. The default is a run of one process."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Number of this process on its machine, and of the GPU that it takes."""

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which alone prints and writes checkpoints."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This process's part of `count` things. All parts together are everything, once."""
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of all processes' `values`, in place, with the same bits in each process."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by the mean over all processes."""
        if self.world_size > 1 and tensors:
            flat = self.all_reduce(torch.cat([tensor.flatten() for tensor in tensors])) / self.world_size
            parts = torch.split(flat, [tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """Rows of all processes, in the order of their ranks. `rows` is on the CPU, (own rows, …)."""
        if self.world_size == 1:
            return rows
        counts = self.all_gather(len(rows))
        before = sum(counts[: self.rank])
        whole = rows.new_zeros((sum(counts), *rows.shape[1:]))
        whole[before : before + len(rows)] = rows
        return self.all_reduce(whole)

    def all_gather(self, found: Any) -> list[Any]:
        """What each process found, by rank; anything that JSON can say (no pickle goes over the wire)."""
        if self.world_size == 1:
            return [found]
        own = torch.from_numpy(np.frombuffer(json.dumps(found).encode(), np.uint8).copy())
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(own)]))
        longest = max(int(size) for size in sizes)
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.world_size)]
        dist.all_gather(texts, torch.cat([own, own.new_zeros(longest - len(own))]))
        pairs = zip(texts, sizes, strict=True)
        return [json.loads(text[: int(size)].numpy().tobytes()) for text, size in pairs]

    def broadcast(self, found: Any) -> Any:
        """What the main process found."""
        return self.all_gather(found if self.is_main else None)[0]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.all_gather(None)

    def read_on_main(self, file: Path) -> bytes:
        """A file as the main process reads it: the others may be on machines that do not have it."""
        if self.world_size == 1:
            return file.read_bytes()
        content = torch.from_numpy(np.frombuffer(file.read_bytes() if self.is_main else b"", np.uint8).copy())
        size = self.broadcast(len(content))
        content = content if self.is_main else torch.zeros(size, dtype=torch.uint8)
        dist.broadcast(content, src=0)
        return content.numpy().tobytes()

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Each machine's first process does this before its others, which find what it left on the disk."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()


SINGLE_PROCESS = DistributedContext()


def from_environment() -> DistributedContext:
    """This process by its environment variables. Raises ConfigError if some of them are missing."""
    return DistributedContext(*environment.place()) if environment.several_processes() else SINGLE_PROCESS


@contextmanager
def joined() -> Iterator[DistributedContext]:
    """Meet the other processes, if there are others; the first error in one of them ends all.

    The process that failed first raises its error, which then names it; the others exit with status 1 and say nothing.
    """
    context = from_environment()
    if context.world_size == 1:
        yield context
        return
    store = _meet(context)
    try:
        yield context
    except Exception as error:
        raise _reason(error, context, store) from error
    dist.destroy_process_group()


def _meet(context: DistributedContext) -> Store:
    # What is on the CPU (figures, file contents, networks on machines without a GPU) goes by gloo.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store: Store = next(rendezvous("env://", timeout=MEETING))[0]
        dist.init_process_group(backend, store=store, rank=context.rank, world_size=context.world_size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        where = environment.address()
        raise RankError(f"{_name(context)}: did not meet the others at {where} ({_line(error)})") from error
    return store


def _reason(error: Exception, context: DistributedContext, store: Store) -> BaseException:
    """The error that this process ends with: none of its own if another failed before."""
    try:
        first = store.compare_set(FAILED, "", str(context.rank)).decode()
        if first != str(context.rank):
            # torchrun ends all when one has ended: let that be the one that has something to say.
            store.wait([NEVER], GRACE)
    except RuntimeError:  # nothing came, or the process that kept the store is gone, and has said why
        return SystemExit(1)
    if isinstance(error, BinwatchError):
        return RankError(f"{_name(context)}: {error}")
    if isinstance(error, dist.DistError) or "gloo" in str(error):
        return RankError(
            f"{_name(context)}: lost another process ({_line(error)}); if it printed no error, it was killed,"
            " for example for lack of memory"
        )
    error.add_note(f"in {_name(context)}")
    return error


def _name(context: DistributedContext) -> str:
    return f"process {context.rank} of {context.world_size} on {socket.gethostname()}"


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
