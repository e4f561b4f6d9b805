"""The command `prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from binwatch.image import INPUT_SIZE
from binwatch.settings import load_settings
from trainer.cli.table_options import with_options_of
from trainer.errors import ConfigError
from trainer.prepare.config import PrepareConfig


@with_options_of(PrepareConfig, flags={"source": "--from"})
def prepare(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for photos, manifest and report; may have photos already.")
    ],
    **options: Any,
) -> None:
    """Fetch and verify photos and labels, split them by bin group, and write manifest, histogram and report."""
    from trainer.data.source import prepared_jpeg_quality
    from trainer.display import Display
    from trainer.prepare import outputs
    from trainer.prepare.photo_store import PHOTOS
    from trainer.prepare.run import open_inputs
    from trainer.prepare.run import prepare as run

    try:
        config = PrepareConfig(**options)
    except ValidationError as error:
        raise ConfigError(f"prepare: {error.errors()[0]['msg']} (--list FILE, --per-class N, --all)") from error
    display = Display()
    display.say(outputs.render_report(run(*open_inputs(config, load_settings()), out, display)))
    jpeg_quality = prepared_jpeg_quality(out, INPUT_SIZE)
    quality = f" --set data.jpeg_quality={jpeg_quality}" if jpeg_quality else ""
    data = f"--photos {out / PHOTOS} --index {out / outputs.MANIFEST}"
    display.say(f"fit with it: python -m trainer fit {data} --out RUN{quality}")
