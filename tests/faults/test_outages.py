"""Tests in which a service that all workers need fails under load and comes back."""

from __future__ import annotations

import os
import signal
import time

import pytest

from testing.services.postgres import Postgres
from testing.services.proxy import Proxy
from testing.services.rabbitmq import RabbitMQ
from tests.faults.conftest import Took
from tests.faults.stack import Stack

PHOTOS = 300
S3_OUTAGE_S = float(os.environ.get("FAULTS_S3_REFUSES_S", "20"))


def put_under_load(stack: Stack) -> None:
    """Announce photos and metadata files, and return once a worker is counting them."""
    stack.publish([body for n in range(PHOTOS) for body in (stack.photo(n), stack.metadata(n, n % 5))])
    stack.start()
    stack.wait_until(lambda: stack.recorded() >= 30)


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_rabbitmq_outage(stack: Stack, rabbitmq: RabbitMQ, took: Took, stop_signal: signal.Signals) -> None:
    """The same worker counts photos that arrive after the restart."""
    put_under_load(stack)
    rabbitmq.stop(stop_signal)
    left = PHOTOS - stack.recorded()
    assert left > 0, "there was no load"
    rabbitmq.start()
    began = time.monotonic()
    stack.publish([stack.photo(PHOTOS + n) for n in range(20)])
    stack.settle()
    stack.check()
    took(f"{left} photos left; they and 20 new ones recorded {time.monotonic() - began:.1f} s after it was back")


def test_dead_letters_are_readable_after_a_killed_rabbitmq_returns(
    stack: Stack, rabbitmq: RabbitMQ, took: Took
) -> None:
    stack.publish(["no event", stack.photo(1)])
    stack.start()
    stack.settle()
    stack.wait_until(lambda: stack.waiting(stack.settings.event_dead_letter_queue) == 1)
    rabbitmq.stop(signal.SIGKILL)
    rabbitmq.start()
    began = time.monotonic()
    (letter,) = stack.dead_letters()
    assert (letter.body, letter.reason[:8]) == ("no event", "not JSON")
    took(f"read {time.monotonic() - began:.1f} s after it was back")


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
def test_postgresql_outage(stack: Stack, postgres: Postgres, took: Took, stop_signal: signal.Signals) -> None:
    put_under_load(stack)
    postgres.stop(stop_signal)
    postgres.start()
    began = time.monotonic()
    left = PHOTOS - stack.recorded()
    assert left > 0, "there was no load"
    stack.settle()
    stack.check()
    took(f"{left} photos left, recorded {time.monotonic() - began:.1f} s after it was back")


def test_s3_outage(stack: Stack, s3_proxy: Proxy, took: Took) -> None:
    put_under_load(stack)
    s3_proxy.refuse()
    end = time.monotonic() + S3_OUTAGE_S
    left = PHOTOS - stack.recorded()
    assert left > 0, "there was no load"
    stack.wait_until(lambda: time.monotonic() >= end)
    s3_proxy.serve()
    seconds = stack.settle()
    stack.check()
    took(f"refused for {S3_OUTAGE_S:g} s; {left} photos left then, recorded {seconds:.1f} s after it was back")
