"""What it takes to try each alert by really causing it: see docs/operations.md, "How the alerts were tried".

    python -m benchmarks.alerts rules 60 FOLDER
    python -m benchmarks.alerts watch http://127.0.0.1:9090 http://127.0.0.1:9091
    python -m benchmarks.alerts photos http://127.0.0.1:7070 [--without-metadata] [--dirty-lens] [--cut] [--photos 150]

`rules` writes a configuration of Prometheus in which an hour passes in a minute. `watch` prints when which alert begins
and ceases to fire. `photos` puts three sample photos a second, each of a bin of its own and with its metadata, and
needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a user who may upload. `--without-metadata` leaves out that of one
photo in five, `--dirty-lens` blurs and darkens the photos, `--cut` ends the files halfway.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import httpx
import numpy as np
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from benchmarks.disturbances import blurred, scaled

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus"
SAMPLES = sorted((ROOT / "samples" / "bin-images").glob("*.jpg"))
MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
WEEK_S = 7 * 86400
HALF_A_DAY_S = 43200
PAUSE_S = 1 / 3


def main() -> None:
    options = _options()
    with suppress(KeyboardInterrupt):
        options.run(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    rules = commands.add_parser("rules")
    rules.add_argument("factor", type=int)
    rules.add_argument("folder", type=Path)
    rules.set_defaults(run=lambda options: write(options.factor, options.folder))
    watch = commands.add_parser("watch")
    watch.add_argument("urls", nargs="+")
    watch.set_defaults(run=lambda options: follow(options.urls))
    photos = commands.add_parser("photos")
    photos.add_argument("url")
    photos.add_argument("--bucket", default="binwatch")
    photos.add_argument("--photos", type=int, default=sys.maxsize)
    for name in ("--without-metadata", "--dirty-lens", "--cut"):
        photos.add_argument(name, action="store_true")
    photos.set_defaults(run=put_photos)
    return parser.parse_args()


def write(factor: int, folder: Path) -> None:
    """Write Prometheus's configuration and rules, so many times faster, into a new folder."""
    folder.mkdir(parents=True)
    for name in ("recording.yml", "alerts.yml"):
        (folder / name).write_text(faster((RULES / name).read_text(encoding="utf-8"), factor), encoding="utf-8")
    config = (RULES / "prometheus.yml").read_text(encoding="utf-8")
    (folder / "prometheus.yml").write_text(re.sub(r": 1[05]s", ": 1s", config), encoding="utf-8")


def faster(rules: str, factor: int) -> str:
    """The rules with every range, offset and `for:` divided by a factor.

    So are the week of BinwatchNoPhotos, and the half a day of BinwatchNightlyLate, which workers add. What stays: the
    60 s of an objective, the ten minutes of BinwatchDriftStale, and the three intervals of reconcile.
    """
    rules = re.sub(r"(?<=[\[ ])(\d+)([smhdw])\b", lambda one: f"{int(one[1]) * MS[one[2]] // factor}ms", rules)
    rules = rules.replace("7 * 86400", str(WEEK_S // factor))
    night = '{task="binwatch.nightly", step="success"} > '
    return rules.replace(f"{night}0", f"{night}-{HALF_A_DAY_S - HALF_A_DAY_S // factor}")


def follow(urls: list[str]) -> None:
    """Ask each Prometheus every second, and print what has begun or ceased to fire."""
    firing: dict[str, set[str]] = {url: set() for url in urls}
    while True:
        for url in urls:
            with suppress(httpx.HTTPError):
                found = _firing(httpx.get(f"{url}/api/v1/alerts", timeout=10).raise_for_status().json())
                for alert in sorted(found ^ firing[url]):
                    state = "fires" if alert in found else "ends"
                    print(f"{datetime.now(UTC):%H:%M:%S}  {url}  {state:<6}{alert}", flush=True)
                firing[url] = found
        time.sleep(1)  # between two looks


def _firing(answer: dict[str, Any]) -> set[str]:
    alerts = [alert["labels"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"]
    return {f"{alert['alertname']} ({alert['severity']})" for alert in alerts}


def put_photos(options: argparse.Namespace) -> None:
    """Until so many are there, or for ever. Each is tried until S3 takes it."""
    s3, name = boto3.client("s3", endpoint_url=options.url, region_name="us-east-1"), uuid.uuid4().hex[:8]
    for number in count():
        if number >= options.photos:
            return
        sample = SAMPLES[number % len(SAMPLES)]
        bin_id = f"{name}-{number:06}"
        if not (options.without_metadata and number % 5 == 0):
            metadata = ROOT / "samples" / "metadata" / f"{sample.stem}.json"
            _put(s3, options.bucket, f"metadata/{bin_id}.json", metadata.read_bytes())
        _put(s3, options.bucket, f"bin-images/{bin_id}.jpg", _photo(sample, options))
        time.sleep(PAUSE_S)


def _photo(path: Path, options: argparse.Namespace) -> bytes:
    data = path.read_bytes()
    if options.dirty_lens:
        file = io.BytesIO()
        pixels = np.asarray(Image.open(path).convert("RGB"))
        Image.fromarray(scaled(blurred(pixels, 4.0), 0.6)).save(file, "JPEG", quality=90)
        data = file.getvalue()
    return data[: len(data) // 2] if options.cut else data


def _put(s3: Any, bucket: str, key: str, body: bytes) -> None:
    while True:
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=body)
        except (ClientError, BotoCoreError) as error:
            print(f"{key}: {error}; trying again", file=sys.stderr)
            time.sleep(1)  # before another try
        else:
            return


if __name__ == "__main__":
    main()
