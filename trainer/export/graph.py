"""Writes the network as one ONNX graph, from uint8 photos to calibrated probabilities and an embedding."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from binwatch.bundle import EMBEDDING_OUTPUT, INPUT_NAME, PROBABILITIES_OUTPUT
from binwatch.image import INPUT_SIZE
from trainer.export.notes import remove_notes
from trainer.export.simplify import simplify
from trainer.models.counter import Counter

OPSET = 20


class DeployedCounter(nn.Module):
    """uint8 (batch, size, size, 3) → probabilities (batch, quantities) and embedding (batch, embedding), float32."""

    shift: Tensor

    def __init__(self, counter: Counter, temperature: float, shift: npt.NDArray[np.float64]) -> None:
        super().__init__()
        self.normalise = counter.normalise
        self.backbone = simplify(counter.backbone)
        self.head = counter.head
        self.class_mask = counter.class_mask
        self.temperature = temperature
        self.register_buffer("shift", torch.from_numpy(shift).float())

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        logits, embedding = self.head(self.backbone(self.normalise(photos)))
        return torch.softmax(self.class_mask(logits / self.temperature + self.shift), dim=1), embedding


def write_onnx(
    counter: Counter,
    temperature: float,
    file: Path,
    size: int = INPUT_SIZE,
    shift: npt.NDArray[np.float64] | None = None,
) -> None:
    """Write the fp32 graph for photos of `size`×`size` pixels into one file, with a dynamic batch dimension.

    `shift`, float64 (quantities,), is added to the logits after they are divided by the temperature.
    """
    deployed = DeployedCounter(counter, temperature, np.zeros(counter.quantities) if shift is None else shift).eval()
    photos = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # an example of one photo would fix the batch size at 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings inside the exporter, which a user cannot act on
        torch.onnx.export(
            deployed,
            (photos,),
            file,
            input_names=[INPUT_NAME],
            output_names=[PROBABILITIES_OUTPUT, EMBEDDING_OUTPUT],
            dynamic_shapes={"photos": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,  # one file per variant, because a second file is easily forgotten when copying
            verbose=False,
        )
    remove_notes(file)
