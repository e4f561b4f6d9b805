"""Training curves of a run, as a picture and as TensorBoard files."""

from __future__ import annotations

from pathlib import Path

from trainer.disk import write_png
from trainer.errors import ConfigError


def plot_curves(history: list[dict[str, float]], file: Path) -> None:
    """Plot losses, accuracy and the share of counts within one item, by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
    losses, shares = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, names in ((losses, ("train_loss", "val_loss")), (shares, ("val_accuracy", "val_within_one"))):
        for name in names:
            axes.plot(epochs, [row[name] for row in history], marker=".", label=name.replace("_", " "))
        axes.set(xlabel="epoch")
        axes.legend(loc="center right")  # the default searches for free space, and warns if that takes a second
    write_png(file, figure)


class TensorBoardWriter:
    """Writes TensorBoard files. They are rewritten from the history, so a resumed run loses no epoch."""

    def __init__(self, folder: Path, history: list[dict[str, float]]) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise ConfigError("train.tensorboard needs the package tensorboard: pip install tensorboard") from error
        for old_file in folder.glob("events.*"):
            old_file.unlink()
        self._writer = SummaryWriter(str(folder))
        for row in history:
            self.add(row)

    def add(self, row: dict[str, float]) -> None:
        """Write an epoch's row of the log."""
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
