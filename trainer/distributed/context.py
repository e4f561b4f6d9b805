"""One training run in several processes, as started by torchrun: one for each GPU, on one or more machines.

Every process has the whole network and computes gradients of its share of each step. The gradients are averaged over
the processes in each step, so that all networks stay equal, bit for bit. RANK, WORLD_SIZE and LOCAL_RANK identify a
process, and all connect to MASTER_ADDR and MASTER_PORT. torchrun sets these variables; another launcher may, too.
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
"""How long the processes wait for each other at the start: the machines of a cluster may boot at different times."""
TIMEOUT = timedelta(hours=12)
"""Time limit of a collective operation. It is long, because one process may compute features for hours while others
wait. The end of a process is noticed without it."""
FAILED = "failed"
"""Key under which the first process that fails stores its rank, so that only this one prints an error."""
NEVER = "never"
"""Key that is never set."""
GRACE = timedelta(seconds=10)
"""How long a process waits to be ended by torchrun after another one has failed."""


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process among the `world_size` processes of a run. The default is a run of one process."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Number of this process on its machine, and of its GPU."""

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which alone prints and writes checkpoints."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This process's part of `count` items. Each item is in exactly one process's part."""
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of all processes' `values`, in place, with the same bits in each process."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
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
        """The `found` of each process, by rank. It must be serialisable as JSON (no pickle is transferred)."""
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
        """The main process's `found`."""
        return self.all_gather(found if self.is_main else None)[0]

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.all_gather(None)

    def read_on_main(self, file: Path) -> bytes:
        """The content of a file on the main process's machine: other machines may not have it."""
        if self.world_size == 1:
            return file.read_bytes()
        content = torch.from_numpy(np.frombuffer(file.read_bytes() if self.is_main else b"", np.uint8).copy())
        size = self.broadcast(len(content))
        content = content if self.is_main else torch.zeros(size, dtype=torch.uint8)
        dist.broadcast(content, src=0)
        return content.numpy().tobytes()

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """On each machine, the first process runs the context before the others, which can then use its files."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()


SINGLE_PROCESS = DistributedContext()


def from_environment() -> DistributedContext:
    """The context that the environment variables describe. Raises ConfigError if some of them are missing."""
    return DistributedContext(*environment.ranks()) if environment.is_distributed() else SINGLE_PROCESS


@contextmanager
def process_group() -> Iterator[DistributedContext]:
    """Connect to the other processes, if there are any. The first error in one of them ends all.

    The process that failed first raises its error, with its own name; the others exit with status 1 without a message.
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
    # gloo transfers tensors on the CPU: figures, file contents, and networks on machines without a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store: Store = next(rendezvous("env://", timeout=MEETING))[0]
        dist.init_process_group(backend, store=store, rank=context.rank, world_size=context.world_size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        where = environment.master_address()
        raise RankError(f"{_name(context)}: could not connect to the others at {where} ({_line(error)})") from error
    return store


def _reason(error: Exception, context: DistributedContext, store: Store) -> BaseException:
    """The exception that ends this process: its own error, or an exit if another process failed before."""
    try:
        first = store.compare_set(FAILED, "", str(context.rank)).decode()
        if first != str(context.rank):
            # torchrun ends all processes when one has ended. This should be the one that prints an error.
            store.wait([NEVER], GRACE)
    except RuntimeError:  # the wait is over, or the process with the store has ended with its own message
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
