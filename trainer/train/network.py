"""The network as it is called by the training loop: compiled and distributed over processes, if configured."""

from __future__ import annotations

import inspect
import os
import shutil
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.config import TrainConfig
from trainer.distributed.context import DistributedContext
from trainer.errors import ConfigError
from trainer.models.counter import Counter
from trainer.train.predict import Logits

COMPILERS = ("g++", "clang++", "c++")


class Network:
    """Inputs → logits of `model`. It trains the parameters of `model` itself, so checkpoints do not depend on it."""

    def __init__(self, model: Counter, config: TrainConfig, context: DistributedContext, *, features: bool) -> None:
        self._call: nn.Module = Logits(model, features=features)
        self._parallel: DistributedDataParallel | None = None
        if context.world_size > 1:
            self._call = self._parallel = _parallel(self._call)
        self._failure: type[Exception] | tuple[()] = ()
        if config.compile:
            from torch._dynamo.exc import BackendCompilerFailed  # takes seconds to import

            self._failure = BackendCompilerFailed
            # Batches of an epoch have two sizes at most (see Sampler): one specialised program for each.
            self._call.compile(dynamic=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        try:
            logits: Tensor = self._call(inputs)
        except self._failure as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"train.compile: torch could not compile the network ({reason}); set it to false"
            ) from error
        return logits

    def synchronised(self, exchange: bool) -> AbstractContextManager[None]:
        """A context for a forward and a backward pass, with or without an exchange of gradients among the processes."""
        return nullcontext() if self._parallel is None or exchange else self._parallel.no_sync()


def check_compiler(config: TrainConfig) -> None:
    """Raises ConfigError if train.compile is set and this machine has no compiler."""
    if not config.compile:
        return
    names = [os.environ.get("CXX", ""), *COMPILERS]
    if not any(shutil.which(name) for name in names if name):
        raise ConfigError(
            f"train.compile needs a C++ compiler, and there is none of {', '.join(COMPILERS)} (or CXX);"
            " install g++ or set train.compile=false"
        )


def _parallel(module: nn.Module) -> DistributedDataParallel:
    # Each process keeps its own statistics of batch norms until the end of the epoch (TrainingRun), instead of copying
    # those of the first process before every pass. torch 2.15 has renamed the option.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    option: dict[str, Any] = {name: False}
    # The strides of a 1×1 kernel can be written in two ways. torch warns about it, but the memory order is the same.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(module, gradient_as_bucket_view=True, **option)
