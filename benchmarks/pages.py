"""Response times of each page and each path of the JSON API with a million records in PostgreSQL.

    python -m benchmarks.pages [--bins 1000000] [--url DATABASE_URL [--filled]] [--rounds 40]

Without --url, a temporary PostgreSQL from Debian's package is started, without fsync. DATABASE_URL must name an empty
database. Records are written by SQL, first the ledgers and then the tables derived from them: photos of 30 days,
counted by two models, each bin with an expected quantity, one in fifty audited. Then the real monitor serves them over
HTTP, and each path is requested repeatedly, each time with different bins, days and prefixes. Pages with photos are
omitted, because photos come from a bucket.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import httpx
from sqlalchemy import Engine, text

from benchmarks.timing import milliseconds, p95
from binwatch.cores import usable_cores
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.settings import load_settings
from testing.services.monitor import serving_monitor
from testing.services.postgres import running_postgres

CHUNK_BINS = 250_000
DAYS = 30
BUSY_BIN = "0000001"
BUSY_PHOTOS = 2_000
"""Number of photos of one bin in front of a fixed camera."""
LIMIT_MS = 200
"""Limit for the 95th percentile of every request."""
ROWS = """
    CREATE TEMPORARY TABLE made AS
    SELECT i, lpad(i::text, 7, '0') AS bin, (random() * 6)::int AS expected, (random() - 0.5) * 6 AS error,
        0.2 + 0.75 * random() AS top, now() - interval '30 days' * (1 - i::float / :bins) AS at
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS i
"""
COUNTS = """
    INSERT INTO counts (id, bucket, key, etag, bin_id, model_version, precision, provider, predicted, probabilities,
        width, height, bytes, brightness, contrast, sharpness, embedding, modified_at, recorded_at)
    SELECT i, 'bins', 'bin-images/' || bin || '.jpg', md5(bin), bin, CASE WHEN i < :bins * 0.6 THEN 'bench-1' ELSE
        'bench-2' END, 'int8', 'CPUExecutionProvider', p, (SELECT json_agg(CASE WHEN c = p THEN top ELSE (1 - top) / 6
        END) FROM generate_series(0, 6) AS c), 640, 480, 40000, 0.4, 0.2, 0.1, decode(repeat('003c', 64), 'hex'), at, at
    FROM (SELECT *, least(6, greatest(0, expected + CASE WHEN abs(error) < 1.5 THEN 0 ELSE error::int END)) AS p
        FROM made) AS counted
"""
EXPECTATIONS = """
    INSERT INTO expectations (id, bucket, bin_id, source, etag, quantity, modified_at, recorded_at)
    SELECT i, 'bins', bin, 'metadata/' || bin || '.json', 'e', expected, at, at FROM made
"""
COMPARISONS = """
    INSERT INTO comparisons (id, bucket, bin_id, count_id, expectation_id, model_version, predicted, expected, error,
        outcome, compared_at)
    SELECT c.id, c.bucket, c.bin_id, c.id, e.id, c.model_version, c.predicted, e.quantity, c.predicted - e.quantity,
        CASE WHEN c.predicted = e.quantity THEN 'exact' WHEN c.predicted < e.quantity THEN 'under' ELSE 'over' END,
        c.recorded_at
    FROM counts c JOIN expectations e ON e.id = c.id WHERE c.id BETWEEN :first AND :last
"""
BINS = """
    INSERT INTO bins (bucket, bin_id, count_id, photo_at, expectation_id, expected_at, photo_state, quantity_state)
    SELECT bucket, bin_id, id, modified_at, id, modified_at, 'counted', 'known' FROM counts
    WHERE id BETWEEN :first AND :last
"""
AUDITS = """
    INSERT INTO audits (bucket, bin_id, answer, quantity, blind, auditor, count_id, expectation_id, audited_at)
    SELECT bucket, bin_id, 'count', expected, true, 'Ada', count_id, expectation_id, compared_at FROM comparisons
    WHERE id BETWEEN :first AND :last AND id % 50 = 0
"""
BUSY_BIN_COUNTS = """
    INSERT INTO counts (bucket, key, etag, bin_id, model_version, precision, provider, predicted, probabilities,
        modified_at, recorded_at)
    SELECT bucket, key, i::text, bin_id, model_version, precision, provider, predicted, probabilities,
        modified_at - interval '1 hour' * i, recorded_at
    FROM counts, generate_series(1, :photos) AS i WHERE bin_id = :bin
"""
TOTALS = (
    "INSERT INTO photo_totals SELECT model_version, '', count(*), now() FROM counts GROUP BY model_version",
    "INSERT INTO expectation_totals SELECT '', count(*), now() FROM expectations",
    "INSERT INTO bin_totals SELECT photo_state, quantity_state, count(*), now() FROM bins GROUP BY 1, 2",
    """INSERT INTO confusion_totals SELECT 'inventory', model_version, least(expected, 6), predicted, count(*), now()
        FROM comparisons GROUP BY 2, 3, 4""",
    """INSERT INTO confusion_totals SELECT 'audit', '', least(quantity, 6), least(quantity, 6), count(*), now()
        FROM audits GROUP BY 3, 4""",
    "INSERT INTO audit_totals SELECT answer, blind, count(*), now() FROM audits GROUP BY 1, 2",
)
DERIVED = (
    # The p-value is about as small as the probability of the expected quantity, in the direction of the difference.
    """INSERT INTO current_comparisons (bucket, bin_id, comparison_id, count_id, expectation_id, model_version, key,
        photo_at, predicted, expected, difference, chance, p_value, p_missing, p_surplus, doubt, doubt_one_sided,
        calibration, audit_id)
        SELECT bucket, bin_id, id, count_id, expectation_id, model_version, key, modified_at, predicted, expected,
            error, chance, p, CASE WHEN error < 0 THEN p / 2 ELSE 1 END, CASE WHEN error > 0 THEN p / 2 ELSE 1 END, p,
            CASE WHEN error = 0 THEN 1 ELSE p / 2 END, 0, audit_id
        FROM (SELECT *, least(1, greatest(0.0005, chance * (0.5 + random()) * 3)) AS p
            FROM (SELECT b.bucket, b.bin_id, p.id, p.count_id, p.expectation_id, p.model_version, c.key, c.modified_at,
                p.predicted, p.expected, p.error,
                CAST(c.probabilities ->> least(p.expected, 6) AS double precision) AS chance,
                (SELECT max(a.id) FROM audits a WHERE a.bucket = b.bucket AND a.bin_id = b.bin_id) AS audit_id
                FROM bins b JOIN counts c ON c.id = b.count_id JOIN comparisons p ON p.count_id = b.count_id) AS pairs
            ) AS judged""",
    "INSERT INTO rank_totals SELECT 'calibrated', count(*), now() FROM current_comparisons",
    """INSERT INTO models (model_version, first_at, calibrations) SELECT model_version, min(recorded_at), 0 FROM counts
        GROUP BY model_version""",
    """INSERT INTO comparison_hours SELECT date_trunc('hour', compared_at), model_version, outcome, count(*), now()
        FROM comparisons GROUP BY 1, 2, 3""",
    """INSERT INTO photo_hours SELECT date_trunc('hour', recorded_at), model_version, least(9, floor(top * 10)),
        count(*), sum(top), now() FROM (SELECT recorded_at, model_version,
            CAST(probabilities ->> CAST(predicted AS integer) AS double precision) AS top FROM counts) AS counted
        GROUP BY 1, 2, 3""",
)
SEQUENCES = "SELECT setval(pg_get_serial_sequence('{0}', 'id'), (SELECT max(id) FROM {0}))"


def fill(engine: Engine, bins: int) -> None:
    """Write the records."""
    migrate(engine)
    for first in range(1, bins + 1, CHUNK_BINS):
        last = min(first + CHUNK_BINS - 1, bins)
        with engine.begin() as connection:
            connection.execute(text(ROWS), {"bins": bins, "first": first, "last": last})
            connection.execute(text(COUNTS), {"bins": bins})
            connection.execute(text(EXPECTATIONS))
            for statement in (COMPARISONS, BINS, AUDITS):
                connection.execute(text(statement), {"first": first, "last": last})
            connection.execute(text("DROP TABLE made"))
        print(f"{last:,} bins", flush=True)
    with engine.begin() as connection:
        for table in ("counts", "expectations", "comparisons"):
            connection.execute(text(SEQUENCES.format(table)))
        connection.execute(text(BUSY_BIN_COUNTS), {"photos": BUSY_PHOTOS, "bin": BUSY_BIN})
        for statement in (*TOTALS, *DERIVED):
            connection.execute(text(statement))
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))


class RequestPaths:
    """Paths of requests, with random bins, days and prefixes."""

    def __init__(self, client: httpx.Client, bins: int) -> None:
        self._random = random.Random(1)
        self._bins = bins
        self._cursors = list(self._page_cursors(client))

    def by_name(self) -> dict[str, Callable[[], str]]:
        """Name of a request → function that returns a path for it."""
        lists = {
            "": dict,
            ", flagged, not audited": lambda: {"flagged": "true", "audited": "false"},
            ", missing, not audited": lambda: {"direction": "missing", "audited": "false"},
            ", surplus, flagged": lambda: {"direction": "surplus", "flagged": "true"},
            ", audited": lambda: {"audited": "true"},
            ", three or more under": lambda: {"direction": "missing", "size": 3},
            ", six over": lambda: {"direction": "surplus", "size": 6},
            ", bins that begin with 2 digits": lambda: {"prefix": f"{self._bin()[:2]}"},
            ", bins that begin with 4 digits": lambda: {"prefix": self._bin()[:4]},
            ", bins that begin with 6 digits": lambda: {"prefix": self._bin()[:6]},
            ", keys that begin with 4 digits": lambda: {"prefix": f"bin-images/{self._bin()[:4]}"},
            ", photos of one day": self._day,
            ", photos of one day, over by 2": lambda: self._day() | {"direction": "surplus", "size": 2},
            ", the older model": lambda: {"model": "bench-1"},
            ", all that agree": lambda: {"direction": "exact"},
            ", further down": lambda: {"after": self._random.choice(self._cursors)},
        }
        api = {
            f"API: discrepancies{name}": lambda make=make: f"/api/discrepancies?{urlencode(make())}"
            for name, make in lists.items()
        }
        return api | {
            "API: overview": lambda: "/api/overview?span=90d",
            "API: level": lambda: "/api/level?alpha=" + self._random.choice(("0.01", "0.05", "0.1", "0.2", "0.5")),
            "API: level, missing": lambda: "/api/level?direction=missing&alpha=" + self._random.choice(("0.05", "0.2")),
            **{
                f"API: list of {name}": lambda name=name: f"/api/lists/{name}"
                for name in ("failed", "without-quantity", "without-photo")
            },
            "API: a bin": lambda: f"/api/bin?id={self._bin()}",
            f"API: a bin with {BUSY_PHOTOS:,} photos": lambda: f"/api/bin?id={BUSY_BIN}",
            "API: models": lambda: "/api/models",
            "API: drift": lambda: "/api/drift",
            "API: audits": lambda: f"/api/audits?after={self._random.randrange(200, max(self._bins // 50, 201))}",
            "API: 1,000 lines of CSV": lambda: f"/api/discrepancies.csv?prefix={self._bin()[:4]}",
            "page: overview": lambda: "/",
            "page: discrepancies": lambda: "/discrepancies",
            "page: discrepancies of a prefix": lambda: f"/discrepancies?prefix={self._bin()[:4]}",
            "page: a bin": lambda: f"/bin?id={self._bin()}",
            "page: models": lambda: "/models",
            "page: drift": lambda: "/drift",
            "scrape": lambda: "/metrics",
        }

    def _bin(self) -> str:
        return f"{self._random.randint(1, self._bins):07}"

    def _day(self) -> dict[str, object]:
        start = datetime.now(UTC) - timedelta(days=self._random.randint(1, DAYS - 1))
        return {"since": start.isoformat(), "until": (start + timedelta(days=1)).isoformat()}

    def _page_cursors(self, client: httpx.Client) -> Iterator[str]:
        cursor: str | None = None
        for _ in range(30):
            params = {"limit": 200} | ({"after": cursor} if cursor else {})
            cursor = client.get("/api/discrepancies", params=params).raise_for_status().json()["next"]
            if cursor is None:
                return
            yield cursor


def measure(client: httpx.Client, name: str, make_path: Callable[[], str], rounds: int) -> bool:
    """Print median, 95th percentile and maximum. Returns whether the limit is kept."""
    durations = milliseconds(lambda: client.get(make_path()).raise_for_status(), rounds)
    too_slow = p95(durations) > LIMIT_MS
    note = " (too slow)" if too_slow else ""
    median, highest = statistics.median(durations), max(durations)
    print(f"| {name} | {median:.0f} | {p95(durations):.0f}{note} | {highest:.0f} |", flush=True)
    return not too_slow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", type=int, default=1_000_000)
    parser.add_argument("--url", help="an empty PostgreSQL database")
    parser.add_argument("--filled", action="store_true", help="the database was filled by an earlier run")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url or stack.enter_context(running_postgres()).url("postgres")
        engine = connect(url)
        if not options.filled:
            fill(engine, options.bins)
        print(f"\n{options.bins:,} bins, PostgreSQL, {usable_cores()} cores, in milliseconds\n")
        print("| what | median | p95 | max |\n| --- | --- | --- | --- |")
        os.environ |= {"BINWATCH_DATABASE_URL": url, "BINWATCH_BUCKET": "bins"}
        os.environ["BINWATCH_S3_ENDPOINT_URL"] = (
            "http://127.0.0.1:9"  # no server, so there are no cards, as just after a start
        )
        services, client = stack.enter_context(serving_monitor(load_settings()))
        services.drift.update()
        paths = RequestPaths(client, options.bins)
        kept = [measure(client, name, make_path, options.rounds) for name, make_path in paths.by_name().items()]
        engine.dispose()
        print(f"\n{sum(kept)} of {len(kept)} within {LIMIT_MS} ms at the 95th percentile")


if __name__ == "__main__":
    main()
