"""The command `prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from binwatch.settings import load_settings
from trainer.errors import ConfigError


def prepare(
    out: Annotated[Path, typer.Option("--out", help="Folder for photos, manifest and report; may hold some already.")],
    source: Annotated[
        str, typer.Option("--from", help="s3://BUCKET/PREFIX or a folder, with bin-images/ and metadata/.")
    ] = "s3://aft-vbi-pds",
    endpoint: Annotated[
        str | None, typer.Option(help="S3 endpoint; default: AWS, or BINWATCH_S3_ENDPOINT_URL.")
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Ask without credentials, as the public bucket always is.")
    ] = False,
    listed: Annotated[
        Path | None, typer.Option("--list", help="JSON of classes (file_list.json) or text with a key per line.")
    ] = None,
    per_class: Annotated[int, typer.Option(min=0, help="Photos of each of the seven classes.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Every photo.")] = False,
    balance: Annotated[
        bool, typer.Option("--balance", help="With --list: more of the rare classes, as many as of the commonest.")
    ] = False,
    scan: Annotated[int, typer.Option(min=1, help="Metadata files to look through for classes at most.")] = 50_000,
    size: Annotated[int, typer.Option(min=0, help="Squash photos to this square; 0 keeps them as they are.")] = 0,
    audits: Annotated[
        Path | None, typer.Option(help="CSV with bin and quantity: what a person counted replaces the label.")
    ] = None,
    challenge_val: Annotated[
        Path | None, typer.Option(help="The ABID challenge's random_val.txt: its photos are the test photos.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=48, help="Photos fetched at a time.")] = 16,
) -> None:
    """Fetch photos and labels, verified; split by bin group; write manifest, histogram and report."""
    from trainer.display import Display
    from trainer.prepare import lists, outputs
    from trainer.prepare.place import open_place
    from trainer.prepare.run import Options
    from trainer.prepare.run import prepare as run

    if [listed is not None, per_class > 0, everything].count(True) != 1:
        raise ConfigError("choose one of --list FILE, --per-class N and --all")
    settings = load_settings()
    options = Options(
        keys=tuple(lists.read_keys(listed)) if listed else None,
        per_class=per_class,
        balance=balance,
        scan=scan,
        size=size,
        jobs=jobs,
        audits=lists.read_audits(audits) if audits else {},
        challenge=lists.read_challenge(challenge_val) if challenge_val else None,
        limits=settings.limits,
    )
    display = Display()
    report = run(open_place(source, settings, endpoint, anonymous=unsigned), out, options, display)
    display.say(outputs.text(report))
    display.say(f"manifest: {out / outputs.MANIFEST}")
