"""Prefetching to the device: while a GPU processes a batch, the next one is copied to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainer.data.loader import Batch
from trainer.data.read_ahead import read_ahead
from trainer.train.step_timer import Clock, Stage, time_waits, untimed

StartCopy = Callable[[Batch], Callable[[], Batch]]
"""Starts copying a batch. Returns a function that waits for the copy and returns it."""


def prefetch(batches: Iterable[Batch], device: str, clock: Clock = untimed) -> Iterator[Batch]:
    """Yield `batches` on `device`, copied one batch ahead."""
    if torch.device(device).type == "cpu":
        yield from time_waits(batches, clock)
        return
    device_index = torch.cuda.current_device()

    def pin(batch: Batch) -> Batch:
        with torch.cuda.device(device_index):  # each thread has its own current device
            return map_tensors(batch, lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())

    # Copies to a GPU are asynchronous only from pinned memory. One thread is enough for pinning: it takes a small part
    # of the time that the many readers need for a batch.
    pinned = read_ahead(pin, batches, threads=1, ahead=1)
    yield from copy_ahead(time_waits(pinned, clock), gpu_copier(device), clock)


def copy_ahead(batches: Iterable[Batch], start_copy: StartCopy, clock: Clock = untimed) -> Iterator[Batch]:
    """Yield copies of `batches`. Before a copy is yielded, the copy of the next batch has been started."""
    wait_for_copy: Callable[[], Batch] | None = None
    for batch in batches:
        with clock(Stage.TRANSFER):
            wait_for_next = start_copy(batch)
        if wait_for_copy is not None:
            yield wait_for_copy()
        wait_for_copy = wait_for_next
    if wait_for_copy is not None:
        yield wait_for_copy()


def gpu_copier(device: str) -> StartCopy:
    """Return a function that copies batches in its own CUDA stream. They must be in pinned memory or on the GPU."""
    copy_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def start_copy(batch: Batch) -> Callable[[], Batch]:
        with torch.cuda.stream(copy_stream):
            copy = map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))
        copied = copy_stream.record_event()

        def wait_for_copy() -> Batch:
            compute_stream = torch.cuda.current_stream()
            compute_stream.wait_event(copied)
            map_tensors(copy, lambda tensor: _record_use(tensor, compute_stream))
            return copy

        return wait_for_copy

    return start_copy


def map_tensors(batch: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
    """Apply `function` to all tensors of a batch except `step_quantities`, which is used on the CPU."""
    mapped: Batch = _map_fields(batch, function)
    return mapped


def _map_fields(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    names = [field.name for field in fields(value) if field.name != "step_quantities"]
    return replace(value, **{name: _map_fields(getattr(value, name), function) for name in names})


def _record_use(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    """Record the use of a tensor by `stream`, so that its memory is not reused for the next copy too early."""
    tensor.record_stream(stream)
    return tensor
