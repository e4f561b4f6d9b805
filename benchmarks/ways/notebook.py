"""Counts the photos of a folder as typical notebooks do: plain PyTorch in fp32, one photo per call.

    python -m benchmarks.ways.notebook FOLDER

Pillow decodes, torchvision's transforms squash and normalise, and its ResNet50 counts, as in the notebooks. The weights
are random, which does not affect the speed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import resnet50

from benchmarks.ways.report import report
from binwatch.counts import CLASSES
from binwatch.image import INPUT_SIZE

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, help="number of photos to count, default: all")
    options = parser.parse_args()
    network = resnet50(weights=None, num_classes=len(CLASSES)).eval()
    squash = transforms.Compose(
        [
            transforms.Resize((INPUT_SIZE, INPUT_SIZE)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    files = sorted(options.folder.iterdir())[: options.photos]
    with torch.no_grad():
        network(torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE))
        ready = time.perf_counter()
        for file in files:
            network(squash(Image.open(file).convert("RGB"))[None]).argmax().item()
    report({}, len(files), time.perf_counter() - ready)


if __name__ == "__main__":
    main()
