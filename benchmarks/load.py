"""Sends photos to a server over HTTP, concurrently over persistent connections, and measures the time.

    python -m benchmarks.load http://127.0.0.1:8080/invocations PHOTOS_FOLDER [--in-flight 16] [--requests 600]

It runs as a separate process, so that its work is not counted as the server's. The result is one line of JSON, with the
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
"""(index of the photo, predicted class, seconds until the response)."""


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
    queued: SimpleQueue[int] = SimpleQueue()
    for index in range(len(bodies)):
        queued.put(index)
    content_type = "application/json" if options.base64 else "image/jpeg"
    began, processor_s = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(options.in_flight) as pool:
        sending = [pool.submit(send, options.url, content_type, bodies, queued) for _ in range(options.in_flight)]
        answers = [answer for sender in sending for answer in sender.result()]
    seconds = time.perf_counter() - began
    _print_result(answers, seconds, time.process_time() - processor_s)


def send(url: str, content_type: str, bodies: list[bytes], queued: SimpleQueue[int]) -> Answers:
    """Send queued photos one after the other over one connection. Exits if a response has no count."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
    answers: Answers = []
    while True:
        try:
            index = queued.get_nowait()
        except Empty:
            connection.close()
            return answers
        began = time.perf_counter()
        connection.request("POST", parts.path, bodies[index], {"Content-Type": content_type})
        response = connection.getresponse()
        text = response.read()
        latency_s = time.perf_counter() - began
        predicted = json.loads(text).get("predicted") if response.status == 200 else None
        if predicted is None:
            sys.exit(f"{url} answered photo {index} with {response.status}: {text[:200]!r}")
        answers.append((index, predicted, latency_s))


def _print_result(answers: Answers, seconds: float, processor_s: float) -> None:
    latencies = sorted(latency for _, _, latency in answers)
    result = {
        "photos": len(answers),
        "seconds": seconds,
        "processor_s": processor_s,
        "median_s": statistics.median(latencies),
        "late_s": latencies[int(0.95 * (len(latencies) - 1))],
        "predicted": [predicted for _, predicted, _ in sorted(answers)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
