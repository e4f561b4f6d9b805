"""The folders of a training container below /opt/ml, which SageMaker uses for input and output."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.config import parse_assignment
from trainer.errors import ConfigError

ROOT = Path("/opt/ml")
DATA = "data"
"""The channel with the output of `prepare`: manifest.csv and photos."""
WEIGHTS = "weights"
"""The optional channel with one file of initial weights."""
MAX_REASON_CHARS = 1024
"""Number of characters of the failure file that SageMaker shows."""


class Cluster(BaseModel):
    """The machines of the job, from input/config/resourceconfig.json. SageMaker may add fields to it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    current_host: str
    hosts: list[str]
    network_interface_name: str = "eth0"

    @property
    def rank(self) -> int:
        """Rank of this machine among the machines, sorted by name."""
        return sorted(self.hosts).index(self.current_host)

    @property
    def master(self) -> str:
        """Name of the machine to which the others connect, and which writes the model."""
        return sorted(self.hosts)[0]


@dataclass(frozen=True)
class Layout:
    """The folders below /opt/ml."""

    root: Path = ROOT

    @property
    def model(self) -> Path:
        """The folder that becomes model.tar.gz."""
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        """The folder that is copied to S3 while the job runs, and restored after an interruption."""
        return self.root / "checkpoints"

    @property
    def outputs(self) -> Path:
        """The folder that becomes output.tar.gz."""
        return self.root / "output" / "data"

    def channel(self, name: str) -> Path:
        """Return the folder of an input channel."""
        return self.root / "input" / "data" / name

    def cluster(self) -> Cluster:
        """Read the machines of the job. Returns a single machine if SageMaker has written no file."""
        content = self._read("resourceconfig.json")
        if not content:
            return Cluster(current_host="algo-1", hosts=["algo-1"])
        try:
            return Cluster.model_validate(content)
        except ValidationError as error:
            raise ConfigError(f"resourceconfig.json: {error.errors()[0]['msg']}: {content}") from error

    def changes(self) -> dict[str, Any]:
        """Read the hyperparameters as changes of the configuration ("train.epochs" → 3). In the file, they are text.

        SageMaker's own, such as a tuning job's objective, start with an underscore or `sagemaker_` and are ignored.
        """
        hyperparameters = self._read("hyperparameters.json")
        own = {name: text for name, text in hyperparameters.items() if not name.startswith(("_", "sagemaker_"))}
        return dict(parse_assignment(f"{name}={text}") for name, text in own.items())

    def fail(self, reason: str) -> None:
        """Write why the job has failed, unless another process has already written a reason."""
        file = self.root / "output" / "failure"
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("x", encoding="utf-8") as out:
                out.write(reason[:MAX_REASON_CHARS])
        except FileExistsError:
            return

    def _read(self, name: str) -> dict[str, Any]:
        file = self.root / "input" / "config" / name
        if not file.exists():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{file}: is not JSON ({error})") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{file}: expected an object, found {type(content).__name__}")
        return content
