"""The fuzzer of event messages: a short run, and detection of lost messages and exceptions."""

from __future__ import annotations

import random

import pytest

from benchmarks import fuzz_events
from benchmarks.fuzz_events import FuzzReport, count_announced, fuzz, mutated
from worker.intake.routing import RoutedMessage

EVENTS = 400


def test_fuzzed_events_are_handled_and_announced_objects_recorded() -> None:
    report = fuzz(EVENTS, seed=3)
    assert report.findings == []
    assert sum(report.outcomes.values()) == EVENTS
    assert {"announced", "rejected", "announced, in part rejected", "skipped", "test event"} <= set(report.outcomes)
    assert len(report.announced) > 20
    assert count_announced(report.announced.values()) == []


def test_the_same_seed_makes_the_same_messages() -> None:
    first, second = random.Random(5), random.Random(5)
    assert [mutated(first) for _ in range(50)] == [mutated(second) for _ in range(50)]


def test_a_lost_message_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_events, "route", lambda *_: RoutedMessage())
    report = fuzz(50, seed=3)
    assert any("vanished" in finding for finding in report.findings)
    assert isinstance(report, FuzzReport)


def test_an_exception_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> RoutedMessage:
        raise RecursionError

    monkeypatch.setattr(fuzz_events, "route", fail)
    assert len(fuzz(50, seed=3).findings) == 50
