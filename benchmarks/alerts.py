"""Tools to trigger each alert by causing its condition: see docs/operations.md, "How the alerts were tried".

    python -m benchmarks.alerts rules 60 FOLDER
    python -m benchmarks.alerts watch http://127.0.0.1:9090 http://127.0.0.1:9091
    python -m benchmarks.alerts photos http://127.0.0.1:7070 [--without-metadata] [--dirty-lens] [--cut] [--photos 150]

`rules` writes a Prometheus configuration with all durations divided by a factor; with 60, an hour passes in a minute.
`watch` prints when alerts start and stop firing. `photos` uploads three sample photos a second, each as a new bin with
its metadata, and needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a user who may upload. `--without-metadata` omits
the metadata of one photo in five, `--dirty-lens` blurs and darkens the photos, `--cut` truncates the files to half.
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
MS_PER_UNIT = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
WEEK_S = 7 * 86400
HALF_DAY_S = 43200
UPLOAD_INTERVAL_S = 1 / 3


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
    rules.set_defaults(run=lambda options: write_config(options.factor, options.folder))
    watch = commands.add_parser("watch")
    watch.add_argument("urls", nargs="+")
    watch.set_defaults(run=lambda options: watch_alerts(options.urls))
    photos = commands.add_parser("photos")
    photos.add_argument("url")
    photos.add_argument("--bucket", default="binwatch")
    photos.add_argument("--photos", type=int, default=sys.maxsize)
    for name in ("--without-metadata", "--dirty-lens", "--cut"):
        photos.add_argument(name, action="store_true")
    photos.set_defaults(run=upload_photos)
    return parser.parse_args()


def write_config(factor: int, folder: Path) -> None:
    """Write a Prometheus configuration whose durations are divided by `factor` into a new folder."""
    folder.mkdir(parents=True)
    for name in ("recording.yml", "alerts.yml"):
        (folder / name).write_text(faster((RULES / name).read_text(encoding="utf-8"), factor), encoding="utf-8")
    config = (RULES / "prometheus.yml").read_text(encoding="utf-8")
    (folder / "prometheus.yml").write_text(re.sub(r": 1[05]s", ": 1s", config), encoding="utf-8")


def faster(rules: str, factor: int) -> str:
    """The rules with every range, offset and `for:` divided by `factor`.

    So are the week of BinwatchNoPhotos, and the half day of BinwatchNightlyLate, which workers add. The 60 s of an
    objective, the ten minutes of BinwatchDriftStale and the three intervals of reconcile stay the same.
    """
    rules = re.sub(
        r"(?<=[\[ ])(\d+)([smhdw])\b", lambda match: f"{int(match[1]) * MS_PER_UNIT[match[2]] // factor}ms", rules
    )
    rules = rules.replace("7 * 86400", str(WEEK_S // factor))
    nightly = '{task="binwatch.nightly", step="success"} > '
    return rules.replace(f"{nightly}0", f"{nightly}-{HALF_DAY_S - HALF_DAY_S // factor}")


def watch_alerts(urls: list[str]) -> None:
    """Poll each Prometheus every second, and print which alerts have started or stopped firing."""
    firing: dict[str, set[str]] = {url: set() for url in urls}
    while True:
        for url in urls:
            with suppress(httpx.HTTPError):
                now_firing = _firing(httpx.get(f"{url}/api/v1/alerts", timeout=10).raise_for_status().json())
                for alert in sorted(now_firing ^ firing[url]):
                    state = "fires" if alert in now_firing else "ends"
                    print(f"{datetime.now(UTC):%H:%M:%S}  {url}  {state:<6}{alert}", flush=True)
                firing[url] = now_firing
        time.sleep(1)  # polling interval


def _firing(answer: dict[str, Any]) -> set[str]:
    alerts = [alert["labels"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"]
    return {f"{alert['alertname']} ({alert['severity']})" for alert in alerts}


def upload_photos(options: argparse.Namespace) -> None:
    """Upload `options.photos` photos, by default forever, and retry each upload until it succeeds."""
    s3, run_id = boto3.client("s3", endpoint_url=options.url, region_name="us-east-1"), uuid.uuid4().hex[:8]
    for number in count():
        if number >= options.photos:
            return
        sample = SAMPLES[number % len(SAMPLES)]
        bin_id = f"{run_id}-{number:06}"
        if not (options.without_metadata and number % 5 == 0):
            metadata = ROOT / "samples" / "metadata" / f"{sample.stem}.json"
            _put(s3, options.bucket, f"metadata/{bin_id}.json", metadata.read_bytes())
        _put(s3, options.bucket, f"bin-images/{bin_id}.jpg", _photo(sample, options))
        time.sleep(UPLOAD_INTERVAL_S)


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
            print(f"{key}: {error}; retrying", file=sys.stderr)
            time.sleep(1)  # before the retry
        else:
            return


if __name__ == "__main__":
    main()
