"""Sends photos to a server over HTTP, several at a time over persistent connections, and measures the time.

    python -m benchmarks.load http://127.0.0.1:8080/invocations PHOTOS_FOLDER [--in-flight 16] [--requests 600]

It is a process of its own, so that its work is not counted as the server's. The result is one line of JSON, with the
client's processor time. `--base64` sends {"photo": "…"} instead of the bytes, encoded before the clock starts.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

from benchmarks.services import photos_of

TIMEOUT_S = 120
Answers = list[tuple[int, int, float]]
"""Number of the photo, its class, and the seconds until the response."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--base64", action="store_true")
    options = parser.parse_args()
    bodies = photos_of(options.folder, options.requests)
    if options.base64:
        bodies = [json.dumps({"photo": base64.b64encode(photo).decode()}).encode() for photo in bodies]
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in range(len(bodies)):
        waiting.put(number)
    kind = "application/json" if options.base64 else "image/jpeg"
    began, processor = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(options.in_flight) as pool:
        sending = [pool.submit(send, options.url, kind, bodies, waiting) for _ in range(options.in_flight)]
        answers = [answer for sender in sending for answer in sender.result()]
    seconds = time.perf_counter() - began
    _say(answers, seconds, time.process_time() - processor)


def send(url: str, kind: str, bodies: list[bytes], waiting: SimpleQueue[int]) -> Answers:
    """Send waiting photos one after the other over one connection. Exits if a response has no count."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
    answers: Answers = []
    while True:
        try:
            number = waiting.get_nowait()
        except Empty:
            connection.close()
            return answers
        began = time.perf_counter()
        connection.request("POST", parts.path, bodies[number], {"Content-Type": kind})
        response = connection.getresponse()
        text = response.read()
        taken = time.perf_counter() - began
        predicted = json.loads(text).get("predicted") if response.status == 200 else None
        if predicted is None:
            sys.exit(f"{url} answered photo {number} with {response.status}: {text[:200]!r}")
        answers.append((number, predicted, taken))


def _say(answers: Answers, seconds: float, processor_s: float) -> None:
    taken = sorted(each for _, _, each in answers)
    result = {
        "photos": len(answers),
        "seconds": seconds,
        "processor_s": processor_s,
        "median_s": statistics.median(taken),
        "late_s": taken[int(0.95 * (len(taken) - 1))],
        "predicted": [predicted for _, predicted, _ in sorted(answers)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
