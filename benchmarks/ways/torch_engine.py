"""The engine's network in PyTorch, from photos in memory to outputs in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from binwatch.bundle import Card, Precision
from trainer.config import ModelConfig
from trainer.models import build
from worker.engine import Engine
from worker.inference_sessions import CUDA


class TorchEngine:
    """A network with random weights (bundles have none for PyTorch), channels last, with TF32 matrix products.

    It computes in fp16 if ONNX Runtime does so on the GPU, otherwise in fp32.
    """

    def __init__(self, engine: Engine, compile_mode: str | None = None) -> None:
        """Build the network on the device of `engine`, compiled if `compile_mode` is given."""
        self.on_gpu = engine.provider == CUDA
        self.half = self.on_gpu and engine.precision is Precision.FP16
        self._device = "cuda" if self.on_gpu else "cpu"
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        self._network = DeployedCounter(engine.card, half=self.half).eval()
        self._network.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compile_mode is not None:
            self._network.compile(dynamic=False, mode=compile_mode)

    @torch.inference_mode()
    def infer(self, photos: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Probabilities and embeddings of `photos`, uint8 (n, size, size, 3)."""
        probabilities, embedding = self._network(torch.from_numpy(photos).to(self._device))
        return probabilities.cpu().numpy(), embedding.cpu().numpy()


class DeployedCounter(nn.Module):
    """uint8 photos (batch, h, w, 3) → probabilities and embedding, both float32, like the ONNX file."""

    def __init__(self, card: Card, *, half: bool) -> None:
        super().__init__()
        trained = card.training.get("config", {}).get("model", {"architecture": card.architecture})
        overrides = {"weights": "none", "freeze": "", "highest": card.highest}
        self._counter = build(ModelConfig.model_validate(trained | overrides))
        self._type = torch.float16 if half else torch.float32
        self._counter.backbone.to(self._type)
        self._counter.head.to(self._type)

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        logits, embedding = self._counter.from_features(self._counter.normalise(photos).to(self._type))
        return torch.softmax(logits.float(), dim=1), embedding.float()
