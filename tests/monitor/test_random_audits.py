"""Estimates from audits of random bins: on the page, in the API and as metrics."""

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
def site(sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor that accepts audits."""
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    with running_monitor() as running:
        yield running


@pytest.fixture
def drawn_bins(recorder: Recorder) -> Recorder:
    """Record bins that were drawn once each, the first third with half the likelihood of the others, without audits."""
    for number in range(BINS):
        recorder.pair(f"{number:02}", predicted=3, expected=2 if number % 9 else 3)
    with recorder.engine.begin() as connection:
        columns = (Bin.bucket, Bin.bin_id, Bin.count_id, Bin.expectation_id)
        for row in connection.execute(select(*columns).order_by(Bin.bin_id)).all():
            values = row._asdict() | {"drawn_at": DAY}
            likelihood = 0.5 if int(row.bin_id) < BINS / 3 else 1.0
            connection.execute(insert(AuditDraw).values(**values, likelihood=likelihood))
    return recorder


def test_too_few_audits_show_the_required_number(drawn_bins: Recorder, site: Running) -> None:
    drawn_bins.audit("00", 3)
    drawn_bins.audit("01", 3, blind=False)
    site.services.random_audits.update()
    assert math.isnan(site.metric("binwatch_estimated_right_ratio", of="counts", value="low"))
    assert site.metric("binwatch_random_audits", of="counts") == 1
    assert "29 more audits of bins drawn at random" in site.page()


def test_estimated_shares_follow_from_draws_and_audits(drawn_bins: Recorder, site: Running) -> None:
    quantities = [3 if number % 3 else 2 for number in range(BINS)]
    for number, quantity in enumerate(quantities):
        drawn_bins.audit(f"{number:02}", quantity)
        if quantity != (2 if number % 9 else 3):
            drawn_bins.audit(f"{number:02}", 9)  # a recount of a difference, which changes nothing
    drawn_bins.count("bin-images/00.jpg", 5, etag="another photo")  # does not affect earlier draws
    drawn_bins.expect("01", quantities[1], at=DAY + timedelta(days=1))  # nor does a correction after the audit
    site.services.random_audits.update()
    likelihoods = [0.5 if number < BINS / 3 else 1.0 for number in range(BINS)]
    # The predictions of all bins but one are equal, so they do not improve the estimate.
    of_counts = estimate([quantity == 3 for quantity in quantities], likelihoods)
    of_records = estimate([(2 if number % 9 else 3) == quantities[number] for number in range(BINS)], likelihoods)
    answer = site.get("/api/overview").json()["random_audits"]
    assert (answer["draws"], answer["audited"], answer["counts_audited"]) == (BINS, BINS, BINS)
    assert answer["accuracy"]["share"] == pytest.approx(of_counts.share)
    assert answer["accuracy"]["interval"] == pytest.approx(of_counts.interval.model_dump())
    # They do improve the estimate for the inventory.
    assert answer["inventory"]["interval"]["low"] < of_records.share < answer["inventory"]["interval"]["high"]
    low = site.metric("binwatch_estimated_right_ratio", of="counts", value="low")
    assert low == pytest.approx(of_counts.interval.low)
    assert (answer["photos"], answer["accuracy_bounds"], answer["inventory_bounds"]) == (BINS, None, None)
    assert "36 answered random draws" in site.page()


def test_the_next_random_bin_in_the_api_and_on_the_page(recorder: Recorder, site: Running) -> None:
    assert site.client.post("/api/audits/next").status_code == 401
    assert site.client.post("/api/audits/next", headers=BEARER).status_code == 404
    recorder.pair("00123", 3, 4)
    answer = site.client.post("/api/audits/next", headers=BEARER)
    assert (answer.status_code, answer.json()) == (201, {"bucket": BUCKET, "bin": "00123", "photo": 1})
    headers = {"Origin": str(site.client.base_url).rstrip("/"), "Accept": HTML}
    site.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=headers)
    csrf = site.page().partition('name="csrf" value="')[2].partition('"')[0]
    sent = site.client.post("/audits/next", data={"csrf": csrf}, headers=headers)
    assert sent.status_code == 303
    assert sent.headers["location"].startswith("/audit/bin?")
    assert "id=00123" in sent.headers["location"]
    with recorder.engine.connect() as connection:
        assert connection.execute(select(AuditDraw.likelihood)).scalars().all() == [1, 1]


def test_answers_without_a_number_are_excluded_and_reported(drawn_bins: Recorder, site: Running) -> None:
    """They close four of 36 draws; one draw is open."""
    for number in range(BINS - 5):
        drawn_bins.audit(f"{number:02}", 3)
    for number, answer in ((31, AuditAnswer.AT_LEAST), (32, AuditAnswer.CANNOT_TELL), (33, AuditAnswer.GO_AND_COUNT)):
        drawn_bins.audit(f"{number}", 2 if answer.has_quantity else None, answer=answer)
    drawn_bins.audit("34", None, answer=AuditAnswer.CANNOT_TELL)
    drawn_bins.audit("30", 4, answer=AuditAnswer.AT_LEAST)  # the earlier number remains valid
    site.services.random_audits.update()
    answer = site.get("/api/overview").json()["random_audits"]
    assert (answer["draws"], answer["audited"], answer["no_number"]) == (BINS, BINS - 5, 4)
    assert answer["left_out"] == pytest.approx(4 / 35)
    page = site.page()
    assert re.search(r"11.% of the random audits are left out \(4\): their answer is\s+no number of all items", page)
    # Each of the 31 audits found 3: all counts and 4 expected quantities are right; the last five draws may be either.
    likelihoods = [0.5 if number < BINS / 3 else 1.0 for number in range(BINS)]
    wrong, right = ([True] * (BINS - 5) + [each] * 5 for each in (False, True))
    low, high = (estimate(each, likelihoods).interval for each in (wrong, right))
    assert answer["accuracy_bounds"] == {"low": pytest.approx(low.low), "high": high.high}
    expected = [number % 9 == 0 for number in range(BINS - 5)]
    low, high = (estimate(expected + [each] * 5, likelihoods).interval for each in (False, True))
    assert answer["inventory_bounds"] == {"low": pytest.approx(low.low), "high": pytest.approx(high.high)}
    assert answer["inventory_bounds"]["low"] < answer["inventory"]["interval"]["low"]
    at_worst = f"{100 * answer['accuracy_bounds']['low']:.0f}\u202f% to 100\u202f% of the counts are right"
    assert at_worst in re.sub(r"\s*\n\s*", " ", page)


def test_a_repeated_draw_counts_again(drawn_bins: Recorder, site: Running) -> None:
    """Draws are with replacement: the existing answer is used again."""
    for number in range(BINS):
        drawn_bins.audit(f"{number:02}", 3 if number else 2)
    with drawn_bins.engine.begin() as connection:
        columns = (Bin.bucket, Bin.bin_id, Bin.count_id, Bin.expectation_id)
        draw = connection.execute(select(*columns).where(Bin.bin_id == "00")).one()._asdict()
        connection.execute(insert(AuditDraw), [draw | {"likelihood": 0.5, "drawn_at": DAY}] * 4)
    site.services.random_audits.update()
    likelihoods = [0.5 if number < BINS / 3 else 1.0 for number in range(BINS)] + [0.5] * 4
    expected = estimate([False] + [True] * (BINS - 1) + [False] * 4, likelihoods)
    answer = site.get("/api/overview").json()["random_audits"]
    assert (answer["audited"], answer["photos"]) == (BINS + 4, BINS)
    assert answer["accuracy"]["share"] == pytest.approx(expected.share)
    assert answer["accuracy"]["interval"] == pytest.approx(expected.interval.model_dump())


def test_skipping_draws_another_bin_and_leaves_the_first_open(recorder: Recorder, site: Running) -> None:
    for bin_id in ("a", "b"):
        recorder.pair(bin_id, 3, 4)
    headers = {"Origin": str(site.client.base_url).rstrip("/"), "Accept": HTML}
    site.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=headers)
    place = site.client.post("/audits/next", data={"csrf": _hidden(site.page(), "csrf")}, headers=headers)
    bins = []
    for _ in range(4):
        page = site.page(place.headers["location"]).partition('action="/audits/next"')[2]
        form = {name: _hidden(page, name) for name in ("csrf", "bucket", "bin")}
        bins.append(form["bin"])
        place = site.client.post("/audits/next", data=form, headers=headers)
        assert place.headers["location"].startswith("/audit/bin?")
        assert "random=1" in place.headers["location"]
    assert bins in (["a", "b"] * 2, ["b", "a"] * 2)
    with recorder.engine.connect() as connection:
        result = read_random_audits(connection)
    assert (result.draws >= 5, result.audited) == (True, 0)
    for bin_id, other in (("a", "b"), ("b", "a")):
        answer = site.client.post(f"/api/audits/next?skip={bin_id}&bucket={BUCKET}", headers=BEARER)
        assert answer.json()["bin"] == other
    recorder.audit("b", 3)
    address = "/api/audits/next?skip=a&bucket="
    assert site.client.post(address + BUCKET, headers=BEARER).status_code == 404
    assert site.client.post(address + "another", headers=BEARER).json()["bin"] == "a"


def test_the_overview_links_to_the_longest_waiting_draw(drawn_bins: Recorder, site: Running) -> None:
    """The form on the overview skips no bin."""
    with drawn_bins.engine.begin() as connection:
        longest = update(AuditDraw).where(AuditDraw.bin_id == "17").values(drawn_at=DAY - timedelta(days=1))
        connection.execute(longest)
    headers = {"Origin": str(site.client.base_url).rstrip("/"), "Accept": HTML}
    site.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=headers)
    for _ in range(2):
        sent = site.client.post("/audits/next", data={"csrf": _hidden(site.page(), "csrf")}, headers=headers)
        assert dict(parse_qsl(urlsplit(sent.headers["location"]).query))["id"] == "17"
    with drawn_bins.engine.connect() as connection:
        assert read_random_audits(connection).draws == BINS, "nothing new is drawn while a bin waits"


def test_save_and_next_draws_the_next_bin(recorder: Recorder, site: Running) -> None:
    for bin_id in ("a", "b"):
        recorder.pair(bin_id, 3, 4)
    headers = {"Origin": str(site.client.base_url).rstrip("/"), "Accept": HTML}
    site.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=headers)
    sent = site.client.post("/audits/next", data={"csrf": _hidden(site.page(), "csrf")}, headers=headers)
    names = ("csrf", "bucket", "bin", "photo", "view", "next", "back", "random")
    first = site.page(sent.headers["location"])
    form = {name: _hidden(first, name) for name in names}
    wrong = site.client.post("/audits", data=form | {"answer": "at_least", "quantity": "0"}, headers=headers)
    assert wrong.headers["location"] == f"{form['back']}&problem=at_least"
    assert "must be 1 or more" in site.page(wrong.headers["location"])
    saved = site.client.post("/audits", data=form | {"answer": "count", "quantity": "4"}, headers=headers)
    place = urlsplit(saved.headers["location"])
    other = "b" if form["bin"] == "a" else "a"
    assert (place.path, dict(parse_qsl(place.query))) == (
        "/audit/bin",
        {"bucket": BUCKET, "id": other, "random": "1", "saved": "1"},
    )
    second = site.page(saved.headers["location"])
    form = {name: _hidden(second, name) for name in names}
    last = site.client.post("/audits", data=form | {"answer": "count", "quantity": "4"}, headers=headers)
    assert last.headers["location"] == "/?saved=2", "there is no other to draw"
    with recorder.engine.connect() as connection:
        assert connection.execute(select(Audit.blind)).scalars().all() == [True, True]
        assert {*connection.execute(select(AuditDraw.bin_id)).scalars()} == {"a", "b"}


def _hidden(page: str, name: str) -> str:
    """Return the value of a hidden form field."""
    return unescape(page.partition(f'name="{name}" value="')[2].partition('"')[0])


def test_probabilities_of_another_model_are_not_used_for_the_inventory(drawn_bins: Recorder, site: Running) -> None:
    """Probabilities of two models are not comparable, so only the answers are used."""
    for number in range(BINS):
        drawn_bins.audit(f"{number:02}", 3)
    drawn_bins.count("bin-images/00.jpg", 3, etag="another photo", model="another")
    site.services.random_audits.update()
    likelihoods = [0.5 if number < BINS / 3 else 1.0 for number in range(BINS)]
    without_predictions = estimate([number % 9 == 0 for number in range(BINS)], likelihoods)
    answer = site.get("/api/overview").json()["random_audits"]
    assert (answer["counts_audited"], answer["records_audited"]) == (0, BINS)
    assert answer["inventory"]["interval"] == pytest.approx(without_predictions.interval.model_dump())


def test_a_saved_audit_is_confirmed_even_if_the_next_draw_fails(recorder: Recorder, site: Running) -> None:
    recorder.pair("a", 3, 4)
    headers = {"Origin": str(site.client.base_url).rstrip("/"), "Accept": HTML}
    site.client.post("/login", data={"token": TOKEN, "name": "Ada"}, headers=headers)
    sent = site.client.post("/audits/next", data={"csrf": _hidden(site.page(), "csrf")}, headers=headers)
    page = site.page(sent.headers["location"])
    names = ("csrf", "bucket", "bin", "photo", "view", "next", "back", "random")
    form = {name: _hidden(page, name) for name in names} | {"answer": "count", "quantity": "4"}
    with recorder.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_draws RENAME TO out_of_reach")
    assert site.client.post("/audits", data=form, headers=headers).headers["location"] == "/?saved=1"


def test_imported_draws_are_not_the_latest(drawn_bins: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_bins.audit("00", 3)
    with drawn_bins.engine.begin() as connection:
        first = AuditDraw.id == select(AuditDraw.id).order_by(AuditDraw.id).limit(1).scalar_subquery()
        connection.execute(update(AuditDraw).where(first).values(drawn_at=DAY + timedelta(days=1)))
        monkeypatch.setattr("monitor.random_audits.MAX_DRAWS", 1)
        result = read_random_audits(connection)
    assert (result.draws, result.audited) == (1, 1)
