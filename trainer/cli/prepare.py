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
    """Fetch photos and labels, verified; split by bin group; write manifest, histogram and report."""
    from trainer.data.source import prepared_jpeg_quality
    from trainer.display import Display
    from trainer.prepare import outputs
    from trainer.prepare.place import PHOTOS
    from trainer.prepare.run import opened
    from trainer.prepare.run import prepare as run

    try:
        config = PrepareConfig(**options)
    except ValidationError as error:
        raise ConfigError(f"prepare: {error.errors()[0]['msg']} (--list FILE, --per-class N, --all)") from error
    display = Display()
    display.say(outputs.text(run(*opened(config, load_settings()), out, display)))
    kept = prepared_jpeg_quality(out, INPUT_SIZE)
    quality = f" --set data.jpeg_quality={kept}" if kept else ""
    data = f"--photos {out / PHOTOS} --index {out / outputs.MANIFEST}"
    display.say(f"fit with it: python -m trainer fit {data} --out RUN{quality}")
