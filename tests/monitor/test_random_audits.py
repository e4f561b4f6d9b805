"""Estimates from audits of bins drawn at random: on the page, in the API, and as metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from urllib.parse import parse_qsl, urlsplit

import pytest
from sqlalchemy import Engine, insert, select, update

from binwatch.records.audits import AuditAnswer
from binwatch.records.tables import Audit, AuditDraw, Bin
from monitor.estimates import estimate
from monitor.random_audits import read_random_audits
from tests.monitor.conftest import HTML, Recorder, Running, running_monitor
from tests.monitor.drifting import BUCKET, DAY

TOKEN = "a token of some length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BINS = 36


@pytest.fixture
def floor(sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A monitor that takes audits."""
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    with running_monitor() as running:
        yield running


@pytest.fixture
def drawn(recorder: Recorder) -> Recorder:
    """Bins of which each was drawn once, the first third half as likely as the others; no audit yet."""
    for number in range(BINS):
        recorder.pair(f"{number:02}", predicted=3, expected=2 if number % 9 else 3)
    with recorder.engine.begin() as connection:
        columns = (Bin.bucket, Bin.bin_id, Bin.count_id, Bin.expectation_id)
        for row in connection.execute(select(*columns).order_by(Bin.bin_id)).all():
            values = row._asdict() | {"drawn_at": DAY}
            likely = 0.5 if int(row.bin_id) < BINS / 3 else 1.0
            connection.execute(insert(AuditDraw).values(**values, likelihood=likely))
    return recorder


def test_too_few_audits_show_the_required_number(drawn: Recorder, floor: Running) -> None:
    drawn.audit("00", 3)
    drawn.audit("01", 3, blind=False)
    floor.services.random_audits.update()
    assert math.isnan(floor.metric("binwatch_estimated_right_ratio", of="counts", value="low"))
    assert floor.metric("binwatch_random_audits", of="counts") == 1
    assert "29 more audits of bins drawn at random" in floor.page()


def test_estimated_shares_follow_from_draws_and_audits(drawn: Recorder, floor: Running) -> None:
    found = [3 if number % 3 else 2 for number in range(BINS)]
    for number, quantity in enumerate(found):
        drawn.audit(f"{number:02}", quantity)
        if quantity != (2 if number % 9 else 3):
            drawn.audit(f"{number:02}", 9)  # counted again because it differs, which changes nothing
    drawn.count("bin-images/00.jpg", 5, etag="another photo")  # changes nothing of what was drawn
    drawn.expect("01", found[1], at=DAY + timedelta(days=1))  # nor does what is corrected after an audit
    floor.services.random_audits.update()
    likely = [0.5 if number < BINS / 3 else 1.0 for number in range(BINS)]
    # Predictions are the same of all bins but one, and so are worth nothing.
    of_counts = estimate([quantity == 3 for quantity in found], likely)
    of_records = estimate([(2 if number % 9 else 3) == found[number] for number in range(BINS)], likely)
    answer = floor.get("/api/overview").json()["random_audits"]
    assert (answer["draws"], answer["audited"], answer["counts_audited"]) == (BINS, BINS, BINS)
    assert answer["accuracy"]["share"] == pytest.approx(of_counts.share)
    assert answer["accuracy"]["interval"] == pytest.approx(of_counts.interval.model_dump())
    # Of the inventory they are worth something.
    assert answer["inventory"]["interval"]["low"] < of_records.share < answer["inventory"]["interval"]["high"]
    low = floor.metric("binwatch_estimated_right_ratio", of="counts", value="low")
    assert low == pytest.approx(of_counts.interval.low)
    assert (answer["photos"], answer["accuracy_bounds"], answer["inventory_bounds"]) == (BINS, None, None)
    assert "36 answered random draws" in floor.page()


def test_the_next_random_bin_in_the_api_and_on_the_page(recorder: Recorder, floor: Running) -> None:
    assert floor.client.post("/api/audits/next").status_code == 401
    assert floor.client.post("/api/audits/next", headers=BEARER).status_code == 404
    recorder.pair("00123", 3, 4)
    answer = floor.client.post("/api/audits/next", headers=BEARER)
    assert (answer.status_code, answer.json()) == (201, {"bucket": BUCKET, "bin": "00123", "photo": 1})
    here = {"Origin": str(floor.client.base_url).rstrip("/"), "Accept": HTML}
    floor.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=here)
    csrf = floor.page().partition('name="csrf" value="')[2].partition('"')[0]
    sent = floor.client.post("/audits/next", data={"csrf": csrf}, headers=here)
    assert sent.status_code == 303
    assert sent.headers["location"].startswith("/audit/bin?")
    assert "id=00123" in sent.headers["location"]
    with recorder.engine.connect() as connection:
        assert connection.execute(select(AuditDraw.likelihood)).scalars().all() == [1, 1]


def test_answers_without_a_number_are_excluded_and_reported(drawn: Recorder, floor: Running) -> None:
    """Four of 36 draws are closed by them; one is open."""
    for number in range(BINS - 5):
        drawn.audit(f"{number:02}", 3)
    for number, answer in ((31, AuditAnswer.AT_LEAST), (32, AuditAnswer.CANNOT_TELL), (33, AuditAnswer.GO_AND_COUNT)):
        drawn.audit(f"{number}", 2 if answer.has_quantity else None, answer=answer)
    drawn.audit("34", None, answer=AuditAnswer.CANNOT_TELL)
    drawn.audit("30", 4, answer=AuditAnswer.AT_LEAST)  # the number of before holds
    floor.services.random_audits.update()
    answer = floor.get("/api/overview").json()["random_audits"]
    assert (answer["draws"], answer["audited"], answer["no_number"]) == (BINS, BINS - 5, 4)
    assert answer["left_out"] == pytest.approx(4 / 35)
    page = floor.page()
    assert re.search(r"11.% of the random audits are left out \(4\): their answer is\s+no number of all items", page)
    # Each of the 31 found 3, which all were counted as and 4 were expected; the last five draws were alike.
    likely = [0.5 if number < BINS / 3 else 1.0 for number in range(BINS)]
    wrong, right = ([True] * (BINS - 5) + [each] * 5 for each in (False, True))
    low, high = (estimate(each, likely).interval for each in (wrong, right))
    assert answer["accuracy_bounds"] == {"low": pytest.approx(low.low), "high": high.high}
    expected = [number % 9 == 0 for number in range(BINS - 5)]
    low, high = (estimate(expected + [each] * 5, likely).interval for each in (False, True))
    assert answer["inventory_bounds"] == {"low": pytest.approx(low.low), "high": pytest.approx(high.high)}
    assert answer["inventory_bounds"]["low"] < answer["inventory"]["interval"]["low"]
    at_worst = f"{100 * answer['accuracy_bounds']['low']:.0f}\u202f% to 100\u202f% of the counts are right"
    assert at_worst in re.sub(r"\s*\n\s*", " ", page)


def test_a_repeated_draw_counts_again(drawn: Recorder, floor: Running) -> None:
    """With the answer that it has: draws are with replacement."""
    for number in range(BINS):
        drawn.audit(f"{number:02}", 3 if number else 2)
    with drawn.engine.begin() as connection:
        columns = (Bin.bucket, Bin.bin_id, Bin.count_id, Bin.expectation_id)
        again = connection.execute(select(*columns).where(Bin.bin_id == "00")).one()._asdict()
        connection.execute(insert(AuditDraw), [again | {"likelihood": 0.5, "drawn_at": DAY}] * 4)
    floor.services.random_audits.update()
    likely = [0.5 if number < BINS / 3 else 1.0 for number in range(BINS)] + [0.5] * 4
    expected = estimate([False] + [True] * (BINS - 1) + [False] * 4, likely)
    answer = floor.get("/api/overview").json()["random_audits"]
    assert (answer["audited"], answer["photos"]) == (BINS + 4, BINS)
    assert answer["accuracy"]["share"] == pytest.approx(expected.share)
    assert answer["accuracy"]["interval"] == pytest.approx(expected.interval.model_dump())


def test_skipping_draws_another_bin_and_leaves_the_first_open(recorder: Recorder, floor: Running) -> None:
    for bin_id in ("a", "b"):
        recorder.pair(bin_id, 3, 4)
    here = {"Origin": str(floor.client.base_url).rstrip("/"), "Accept": HTML}
    floor.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=here)
    place = floor.client.post("/audits/next", data={"csrf": _hidden(floor.page(), "csrf")}, headers=here)
    given = []
    for _ in range(4):
        page = floor.page(place.headers["location"]).partition('action="/audits/next"')[2]
        form = {name: _hidden(page, name) for name in ("csrf", "bucket", "bin")}
        given.append(form["bin"])
        place = floor.client.post("/audits/next", data=form, headers=here)
        assert place.headers["location"].startswith("/audit/bin?")
        assert "random=1" in place.headers["location"]
    assert given in (["a", "b"] * 2, ["b", "a"] * 2)
    with recorder.engine.connect() as connection:
        found = read_random_audits(connection)
    assert (found.draws >= 5, found.audited) == (True, 0)
    for bin_id, other in (("a", "b"), ("b", "a")):
        answer = floor.client.post(f"/api/audits/next?skip={bin_id}&bucket={BUCKET}", headers=BEARER)
        assert answer.json()["bin"] == other
    recorder.audit("b", 3)
    asked = "/api/audits/next?skip=a&bucket="
    assert floor.client.post(asked + BUCKET, headers=BEARER).status_code == 404
    assert floor.client.post(asked + "another", headers=BEARER).json()["bin"] == "a"


def test_the_overview_links_to_the_longest_waiting_draw(drawn: Recorder, floor: Running) -> None:
    """Its form skips no bin."""
    with drawn.engine.begin() as connection:
        longest = update(AuditDraw).where(AuditDraw.bin_id == "17").values(drawn_at=DAY - timedelta(days=1))
        connection.execute(longest)
    here = {"Origin": str(floor.client.base_url).rstrip("/"), "Accept": HTML}
    floor.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=here)
    for _ in range(2):
        sent = floor.client.post("/audits/next", data={"csrf": _hidden(floor.page(), "csrf")}, headers=here)
        assert dict(parse_qsl(urlsplit(sent.headers["location"]).query))["id"] == "17"
    with drawn.engine.connect() as connection:
        assert read_random_audits(connection).draws == BINS, "nothing new is drawn while a bin waits"


def test_save_and_next_draws_the_next_bin(recorder: Recorder, floor: Running) -> None:
    for bin_id in ("a", "b"):
        recorder.pair(bin_id, 3, 4)
    here = {"Origin": str(floor.client.base_url).rstrip("/"), "Accept": HTML}
    floor.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=here)
    sent = floor.client.post("/audits/next", data={"csrf": _hidden(floor.page(), "csrf")}, headers=here)
    names = ("csrf", "bucket", "bin", "photo", "view", "next", "back", "random")
    first = floor.page(sent.headers["location"])
    form = {name: _hidden(first, name) for name in names}
    wrong = floor.client.post("/audits", data=form | {"answer": "at_least", "quantity": "0"}, headers=here)
    assert wrong.headers["location"] == f"{form['back']}&problem=at_least"
    assert "must be 1 or more" in floor.page(wrong.headers["location"])
    saved = floor.client.post("/audits", data=form | {"answer": "count", "quantity": "4"}, headers=here)
    place = urlsplit(saved.headers["location"])
    other = "b" if form["bin"] == "a" else "a"
    assert (place.path, dict(parse_qsl(place.query))) == (
        "/audit/bin",
        {"bucket": BUCKET, "id": other, "random": "1", "saved": "1"},
    )
    second = floor.page(saved.headers["location"])
    form = {name: _hidden(second, name) for name in names}
    last = floor.client.post("/audits", data=form | {"answer": "count", "quantity": "4"}, headers=here)
    assert last.headers["location"] == "/?saved=2", "there is no other to draw"
    with recorder.engine.connect() as connection:
        assert connection.execute(select(Audit.blind)).scalars().all() == [True, True]
        assert {*connection.execute(select(AuditDraw.bin_id)).scalars()} == {"a", "b"}


def _hidden(page: str, name: str) -> str:
    """Value of a field that a form has hidden."""
    return unescape(page.partition(f'name="{name}" value="')[2].partition('"')[0])


def test_probabilities_of_another_model_are_not_used_for_the_inventory(drawn: Recorder, floor: Running) -> None:
    """Beside those of the model in use they would look like wrong records: the answers stand alone."""
    for number in range(BINS):
        drawn.audit(f"{number:02}", 3)
    drawn.count("bin-images/00.jpg", 3, etag="another photo", model="another")
    floor.services.random_audits.update()
    likely = [0.5 if number < BINS / 3 else 1.0 for number in range(BINS)]
    alone = estimate([number % 9 == 0 for number in range(BINS)], likely)
    answer = floor.get("/api/overview").json()["random_audits"]
    assert (answer["counts_audited"], answer["records_audited"]) == (0, BINS)
    assert answer["inventory"]["interval"] == pytest.approx(alone.interval.model_dump())


def test_a_saved_audit_is_confirmed_even_if_the_next_draw_fails(recorder: Recorder, floor: Running) -> None:
    recorder.pair("a", 3, 4)
    here = {"Origin": str(floor.client.base_url).rstrip("/"), "Accept": HTML}
    floor.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=here)
    sent = floor.client.post("/audits/next", data={"csrf": _hidden(floor.page(), "csrf")}, headers=here)
    page = floor.page(sent.headers["location"])
    names = ("csrf", "bucket", "bin", "photo", "view", "next", "back", "random")
    form = {name: _hidden(page, name) for name in names} | {"answer": "count", "quantity": "4"}
    with recorder.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_draws RENAME TO out_of_reach")
    assert floor.client.post("/audits", data=form, headers=here).headers["location"] == "/?saved=1"


def test_imported_draws_are_not_the_latest(drawn: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn.audit("00", 3)
    with drawn.engine.begin() as connection:
        first = AuditDraw.id == select(AuditDraw.id).order_by(AuditDraw.id).limit(1).scalar_subquery()
        connection.execute(update(AuditDraw).where(first).values(drawn_at=DAY + timedelta(days=1)))
        monkeypatch.setattr("monitor.random_audits.MAX_DRAWS", 1)
        found = read_random_audits(connection)
    assert (found.draws, found.audited) == (1, 1)
