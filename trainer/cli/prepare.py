"""The command `prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from binwatch.image import SIZE
from binwatch.settings import load_settings
from trainer.errors import ConfigError


def prepare(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for photos, manifest and report; may have photos already.")
    ],
    source: Annotated[
        str, typer.Option("--from", help="s3://BUCKET/PREFIX or a folder, with bin-images/ and metadata/.")
    ] = "s3://aft-vbi-pds",
    endpoint: Annotated[
        str | None, typer.Option(help="S3 endpoint; default: AWS, or BINWATCH_S3_ENDPOINT_URL.")
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Send requests without credentials, as for the public bucket.")
    ] = False,
    listed: Annotated[
        Path | None, typer.Option("--list", help="JSON of classes (file_list.json) or text with a key per line.")
    ] = None,
    per_class: Annotated[int, typer.Option(min=0, show_default=False, help="Photos of each of the seven classes.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Every photo.")] = False,
    balance: Annotated[
        bool, typer.Option("--balance", help="With --list: add photos of rare classes, as many as of the commonest.")
    ] = False,
    scan: Annotated[int, typer.Option(min=1, help="Metadata files to search for classes, at most.")] = 50_000,
    size: Annotated[
        int, typer.Option(min=0, max=2048, help="Squash photos to this square; 0 keeps them as they are.")
    ] = 0,
    audits: Annotated[Path | None, typer.Option(help="CSV with bin and quantity: audits replace the labels.")] = None,
    challenge_val: Annotated[
        Path | None, typer.Option(help="The ABID challenge's random_val.txt: its photos become the test photos.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=48, help="Photos fetched at a time.")] = 16,
) -> None:
    """Fetch photos and labels, verified; split by bin group; write manifest, histogram and report."""
    from trainer.data.source import prepared_quality
    from trainer.display import Display
    from trainer.prepare import outputs
    from trainer.prepare.config import PrepareConfig
    from trainer.prepare.place import PHOTOS
    from trainer.prepare.run import prepare as run

    try:
        config = PrepareConfig(
            source=source, endpoint=endpoint, unsigned=unsigned, list=listed, per_class=per_class, all=everything,
            balance=balance, scan=scan, size=size, audits=audits, challenge_val=challenge_val, jobs=jobs,
        )  # fmt: skip
    except ValidationError as error:
        raise ConfigError(f"prepare: {error.errors()[0]['msg']} (--list FILE, --per-class N, --all)") from error
    place, options = config.open(load_settings())
    display = Display()
    display.say(outputs.text(run(place, out, options, display)))
    kept = prepared_quality(out, SIZE)
    quality = f" --set data.jpeg_quality={kept}" if kept else ""
    data = f"--photos {out / PHOTOS} --index {out / outputs.MANIFEST}"
    display.say(f"fit with it: python -m trainer fit {data} --out RUN{quality}")
