"""The network in the training loop: compiled and distributed over processes, if configured."""

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
"""C++ compilers that torch.compile can use, besides that of CXX."""


class Network:
    """Computes the logits of `model` from inputs. Its parameters are those of `model`, which checkpoints store."""

    def __init__(self, model: Counter, config: TrainConfig, context: DistributedContext, *, features: bool) -> None:
        self._module: nn.Module = Logits(model, features=features)
        self._ddp: DistributedDataParallel | None = None
        if context.world_size > 1:
            self._module = self._ddp = _wrap_in_ddp(self._module)
        self._compile_errors: type[Exception] | tuple[()] = ()
        if config.compile:
            from torch._dynamo.exc import BackendCompilerFailed  # takes seconds to import

            self._compile_errors = BackendCompilerFailed
            # Batches of an epoch have at most two sizes (see Sampler): torch compiles one program per size.
            self._module.compile(dynamic=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        try:
            logits: Tensor = self._module(inputs)
        except self._compile_errors as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"train.compile: torch could not compile the network ({reason}); set it to false"
            ) from error
        return logits

    def gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """Return a context for a forward and a backward pass, with or without a gradient sync between processes."""
        return nullcontext() if self._ddp is None or enabled else self._ddp.no_sync()


def check_compiler(config: TrainConfig) -> None:
    """Raise ConfigError if train.compile is set and this machine has no C++ compiler."""
    if not config.compile:
        return
    names = [os.environ.get("CXX", ""), *COMPILERS]
    if not any(shutil.which(name) for name in names if name):
        raise ConfigError(
            f"train.compile needs a C++ compiler, and there is none of {', '.join(COMPILERS)} (or CXX);"
            " install g++ or set train.compile=false"
        )


def _wrap_in_ddp(module: nn.Module) -> DistributedDataParallel:
    # Each process keeps its own batch norm statistics until the end of the epoch (see TrainingRun), instead of copying
    # those of the first process before every pass. torch 2.15 has renamed the option.
    parameters = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    option: dict[str, Any] = {name: False}
    # The strides of a 1×1 kernel can be written in two ways. torch warns about it, but the memory order is the same.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(module, gradient_as_bucket_view=True, **option)
