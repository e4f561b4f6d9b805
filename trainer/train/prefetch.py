"""Prefetching to the device: while a GPU processes one batch, the next one is copied to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainer.data.loader import Batch
from trainer.data.read_ahead import read_ahead
from trainer.train.step_timer import Clock, Stage, time_waits, untimed

Send = Callable[[Batch], Callable[[], Batch]]
"""Begins to copy a batch, and returns a function that returns the copy, ready for use."""


def prefetch(batches: Iterable[Batch], device: str, clock: Clock = untimed) -> Iterator[Batch]:
    """`batches` on `device`, with everything that the network needs."""
    if torch.device(device).type == "cpu":
        yield from time_waits(batches, clock)
        return
    number = torch.cuda.current_device()

    def pinned(batch: Batch) -> Batch:
        with torch.cuda.device(number):  # the current device differs by thread
            return map_tensors(batch, lambda each: each if each.is_cuda else each.pin_memory())

    # Copies to a GPU are asynchronous only from pinned memory. One thread is enough for this: it takes a small part of
    # the time that the many readers need for a batch.
    source = read_ahead(pinned, batches, threads=1, ahead=1)
    yield from copy_ahead(time_waits(source, clock), gpu_copier(device), clock)


def copy_ahead(batches: Iterable[Batch], send: Send, clock: Clock = untimed) -> Iterator[Batch]:
    """The copies of `batches`. Before a copy is yielded, copying the next batch has begun."""
    copy: Callable[[], Batch] | None = None
    for batch in batches:
        with clock(Stage.TRANSFER):
            following = send(batch)
        if copy is not None:
            yield copy()
        copy = following
    if copy is not None:
        yield copy()


def gpu_copier(device: str) -> Send:
    """Copies in a CUDA stream of its own. Batches must be in pinned memory, or on the GPU already."""
    copying = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def send(batch: Batch) -> Callable[[], Batch]:
        with torch.cuda.stream(copying):
            copy = map_tensors(batch, lambda each: each.to(device, non_blocking=True))
        done = copying.record_event()

        def arrived() -> Batch:
            working = torch.cuda.current_stream()
            working.wait_event(done)
            map_tensors(copy, lambda each: _used_by(each, working))
            return copy

        return arrived

    return send


def map_tensors(batch: Batch, move: Callable[[Tensor], Tensor]) -> Batch:
    """`batch` with all its tensors map_tensors except `step_quantities`, which is used on the CPU."""
    found: Batch = _moved(batch, move)
    return found


def _moved(thing: Any, move: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(thing, Tensor):
        return move(thing)
    if not is_dataclass(thing) or isinstance(thing, type):
        return thing
    parts = {each.name: getattr(thing, each.name) for each in fields(thing) if each.name != "step_quantities"}
    return replace(thing, **{name: _moved(part, move) for name, part in parts.items()})


def _used_by(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    """Mark a tensor as used by `stream`, so that its memory is not reused for the next copy too early."""
    tensor.record_stream(stream)
    return tensor
