"""A training run in several processes, started by torchrun: one process per GPU, on one or more machines.

Every process has the whole network and computes the gradients of its shard of each step. The gradients are averaged
over the processes in each step, so that all networks stay bit-identical. RANK, WORLD_SIZE and LOCAL_RANK identify a
process, and all processes connect to MASTER_ADDR and MASTER_PORT. torchrun or another launcher sets these variables.
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

RENDEZVOUS_TIMEOUT = timedelta(minutes=10)
"""Time limit for all processes to connect: the machines of a cluster may boot at different times."""
COLLECTIVE_TIMEOUT = timedelta(hours=12)
"""Time limit of a collective operation. It is long because one process may compute features for hours while the others
wait. The end of a process is detected without waiting for it."""
FIRST_FAILURE_KEY = "failed"
"""Store key for the rank of the first process that fails, so that only this process prints an error."""
NEVER_SET_KEY = "never"
"""Store key that is never set: waiting for it lets a process sleep until it is ended."""
TERMINATION_GRACE = timedelta(seconds=10)
"""Time that a process waits to be ended by torchrun after another process has failed."""


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process's place among the `world_size` processes of a run. The default is a run of one process."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Index of this process on its machine, and of its GPU."""

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, the only one that prints and writes checkpoints."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Return this process's slice of `count` items. Each item belongs to exactly one process."""
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum `values` over all processes, in place. The result is bit-identical in each process."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
        if self.world_size > 1 and tensors:
            flat = self.all_reduce(torch.cat([tensor.flatten() for tensor in tensors])) / self.world_size
            means = torch.split(flat, [tensor.numel() for tensor in tensors])
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean.view_as(tensor))

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """Concatenate the rows of all processes, in rank order. `rows` are this process's, (rows, …), on the CPU."""
        if self.world_size == 1:
            return rows
        counts = self.all_gather(len(rows))
        start = sum(counts[: self.rank])
        gathered = rows.new_zeros((sum(counts), *rows.shape[1:]))
        gathered[start : start + len(rows)] = rows
        return self.all_reduce(gathered)

    def all_gather(self, value: Any) -> list[Any]:
        """Return the `value` of each process, in rank order. It is transferred as JSON, not as a pickle."""
        if self.world_size == 1:
            return [value]
        payload = torch.from_numpy(np.frombuffer(json.dumps(value).encode(), np.uint8).copy())
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(payload)]))
        max_size = max(int(size) for size in sizes)
        payloads = [torch.zeros(max_size, dtype=torch.uint8) for _ in range(self.world_size)]
        dist.all_gather(payloads, torch.cat([payload, payload.new_zeros(max_size - len(payload))]))
        return [
            json.loads(received[: int(size)].numpy().tobytes()) for received, size in zip(payloads, sizes, strict=True)
        ]

    def broadcast(self, value: Any) -> Any:
        """Return the main process's `value`."""
        return self.all_gather(value if self.is_main else None)[0]

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.all_gather(None)

    def read_on_main(self, file: Path) -> bytes:
        """Return the content of a file on the main process's machine: other machines may not have it."""
        if self.world_size == 1:
            return file.read_bytes()
        content = torch.from_numpy(np.frombuffer(file.read_bytes() if self.is_main else b"", np.uint8).copy())
        size = self.broadcast(len(content))
        content = content if self.is_main else torch.zeros(size, dtype=torch.uint8)
        dist.broadcast(content, src=0)
        return content.numpy().tobytes()

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """On each machine, run the context in the first process before the others, which can then use its files."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()


SINGLE_PROCESS = DistributedContext()


def from_environment() -> DistributedContext:
    """Return the context from the environment variables. Raises ConfigError if some are missing or not numbers."""
    return DistributedContext(*environment.ranks()) if environment.is_distributed() else SINGLE_PROCESS


@contextmanager
def process_group() -> Iterator[DistributedContext]:
    """Connect to the other processes, if there are any. The first error in any process ends all of them.

    The process that failed first raises its error, which names the process. The others exit silently, with status 1.
    """
    context = from_environment()
    if context.world_size == 1:
        yield context
        return
    store = _init_process_group(context)
    try:
        yield context
    except Exception as error:
        raise _exception_to_raise(error, context, store) from error
    dist.destroy_process_group()


def _init_process_group(context: DistributedContext) -> Store:
    # gloo transfers tensors on the CPU: metrics, file contents, and networks on machines without a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store: Store = next(rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT))[0]
        dist.init_process_group(
            backend, store=store, rank=context.rank, world_size=context.world_size, timeout=COLLECTIVE_TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        address = environment.master_address()
        raise RankError(
            f"{_process_name(context)}: could not connect to the others at {address} ({_first_line(error)})"
        ) from error
    return store


def _exception_to_raise(error: Exception, context: DistributedContext, store: Store) -> BaseException:
    """Return the exception that ends this process: its own error, or an exit if another process failed before."""
    try:
        failed_rank = store.compare_set(FIRST_FAILURE_KEY, "", str(context.rank)).decode()
        if failed_rank != str(context.rank):
            # torchrun ends all processes once one has ended. Let that be the one that prints an error.
            store.wait([NEVER_SET_KEY], TERMINATION_GRACE)
    except RuntimeError:  # the wait is over, or the process with the store has ended with its own message
        return SystemExit(1)
    if isinstance(error, BinwatchError):
        return RankError(f"{_process_name(context)}: {error}")
    if isinstance(error, dist.DistError) or "gloo" in str(error):
        return RankError(
            f"{_process_name(context)}: lost another process ({_first_line(error)}); if it printed no error, it was"
            " killed, for example for lack of memory"
        )
    error.add_note(f"in {_process_name(context)}")
    return error


def _process_name(context: DistributedContext) -> str:
    return f"process {context.rank} of {context.world_size} on {socket.gethostname()}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
