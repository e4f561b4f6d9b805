"""Pages other than the overview: with known records, with empty records, and for missing bins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, update
from typer.testing import CliRunner

from binwatch.bundle import Bundle, Calibration, write_card
from binwatch.counts import Outcome, Suspicion
from binwatch.errors import Reason
from binwatch.records.audits import add_audit
from binwatch.records.store import NewExpectation, Store
from binwatch.records.tables import DriftBatch
from binwatch.reference import Signal
from monitor import formatting
from monitor.__main__ import app
from monitor.drift.judge import Verdict
from monitor.drift.windows import Window
from monitor.forms import FormProblem
from monitor.pages import sentences
from monitor.pages.flash import PROBLEMS
from monitor.pages.models import shaded_cells
from monitor.views.discrepancies import Direction, Level
from monitor.views.drift import DriftSummary, SameHoursView, State
from monitor.views.models import Confusion
from monitor.views.overview import TimeRange
from tests.calibrations import category
from tests.monitor.conftest import HTML, Recorder, Running, running_monitor
from tests.monitor.drifting import BUCKET, DAY, MODEL, record_photos, simulated_photos
from tests.monitor.html import Parsed

PAGES = ["/", "/discrepancies", "/bin?id=a", "/models", "/slices", "/drift", "/lists/failed", "/lists/without-photo"]
TOKEN = "a token of some length"
HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(2)>'{{7*7}}"""


@pytest.fixture
def site(known_records: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor of the known records that accepts audits."""
    monkeypatch.setenv("BINWATCH_DATABASE_URL", known_records.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    monkeypatch.setenv("BINWATCH_SLICE_DEPTH", "1")
    with running_monitor() as running:
        running.services.drift.update()
        yield running


def _calibrate(engine: Engine) -> None:
    """Record a calibration by which a bin with an error of five items has a p-value of 1/20."""
    pooled = category(tuple(step / 25 for step in range(19)))
    Store(engine).use_model(MODEL, Calibration(photos=19, split="validation", categories=(pooled,)))


def _sign_in(site: Running, name: str = "Ada") -> None:
    headers = {"Origin": str(site.client.base_url).rstrip("/"), "Accept": HTML}
    assert site.client.post("/login", data={"token": TOKEN, "name": name}, headers=headers).status_code == 303


def _bins(page: Parsed) -> list[str]:
    """Return the ids of the bins that a list links to, in order."""
    links = [link["href"] or "" for link in page.tags("a")]
    return [link.split("id=")[1] for link in links if link.startswith("/bin?")]


def _fields(page: Parsed) -> dict[str | None, str | None]:
    """Return name → value of the form fields of a page; the first form wins."""
    return {field.get("name"): field.get("value") for field in reversed(page.tags("input"))}  # of the first form


# List


def test_the_list_shows_count_and_expected_quantity_of_each_bin(site: Running) -> None:
    page = Parsed(site.page("/discrepancies?audited=any"))
    assert set(_bins(page)) == {"c", "d", "f"}
    assert "Bin c expected 3 counted 1 2 fewer" in page.text
    assert "Bin d expected 4 counted 5 1 more" in page.text
    assert "Bin f expected 40 counted 5 35 fewer" in page.text
    assert "audited: 5, inventory too low" in page.text
    assert "audited: 3, inventory right" in page.text


def test_audited_bins_are_hidden_by_default(site: Running) -> None:
    assert _bins(Parsed(site.page("/discrepancies"))) == ["f"]
    assert set(_bins(Parsed(site.page("/discrepancies?audited=yes")))) == {"c", "d"}


def test_the_form_filters_the_list(site: Running) -> None:
    for query, bins in {
        "direction=surplus": {"d"},
        "direction=missing": {"c", "f"},
        "direction=exact": {"a", "b", "e"},
        "size=2": {"c", "f"},
        "prefix=d": {"d"},
        "prefix=bin-images/f": {"f"},
        "prefix=nothing": set(),
        "since=2026-01-01&until=2026-01-01": {"c", "d", "f"},
        "since=2026-01-02": set(),
        "until=2025-12-31": set(),
        "since=&until=&prefix=&size=&level=": {"c", "d", "f"},
    }.items():
        page = Parsed(site.page(f"/discrepancies?audited=any&{query}"))
        assert (query, set(_bins(page))) == (query, bins)
        assert bins or "No bin passes this filter" in page.text


def test_links_keep_the_filter(site: Running) -> None:
    page = Parsed(site.page("/discrepancies?audited=any&direction=missing&prefix=c"))
    assert "/bin?prefix=c&direction=missing&audited=any&bucket=bins&id=c" in [link["href"] for link in page.tags("a")]
    chosen = [option["value"] for option in page.tags("option") if "selected" in option]
    assert chosen == ["missing", "any", ""]
    assert [field["value"] for field in page.tags("input") if field.get("name") == "prefix"] == ["c"]
    sheet = next(link["href"] for link in page.tags("a") if "download" in link)
    assert site.get(str(sheet)).text.splitlines()[1].startswith("c,bins,bin-images/c.jpg")


def test_the_list_is_paged(site: Running, known_records: Recorder) -> None:
    for number in range(30):
        known_records.pair(f"x{number:02}", predicted=1, expected=4)
    first = Parsed(site.page("/discrepancies?prefix=x"))
    onwards = next(link["href"] for link in first.tags("a") if link.get("rel") == "next")
    second = Parsed(site.page(str(onwards)))
    assert sorted(_bins(first) + _bins(second)) == [f"x{number:02}" for number in range(30)]
    previous = next(link["href"] for link in second.tags("a") if link.get("rel") == "prev")
    assert _bins(Parsed(site.page(str(previous)))) == _bins(first)


@pytest.fixture
def missing_items_monitor(known_records: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor that is configured to flag missing items."""
    monkeypatch.setenv("BINWATCH_DATABASE_URL", known_records.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_FLAG_DIRECTION", "missing")
    with running_monitor() as running:
        yield running


def test_the_form_overrides_the_configured_direction(missing_items_monitor: Running, known_records: Recorder) -> None:
    _calibrate(known_records.engine)
    known_records.pair("fewer", predicted=0, expected=5)
    known_records.pair("more", predicted=5, expected=0)
    page = Parsed(missing_items_monitor.page("/discrepancies?prefix=fewer"))
    assert "1 of 2 bins flagged as missing items" in page.text
    assert "about 50 look so much as if items were missing." in page.text
    assert _bins(Parsed(missing_items_monitor.page("/discrepancies?prefix=more"))) == []
    either = Parsed(missing_items_monitor.page("/discrepancies?prefix=more&direction=either"))
    assert _bins(either) == ["more"]
    sheet = next(link["href"] for link in either.tags("a") if "download" in link)
    assert [line.split(",")[0] for line in missing_items_monitor.get(str(sheet)).text.splitlines()] == ["bin", "more"]
    listed = missing_items_monitor.get("/api/discrepancies?prefix=more").json()["items"]
    assert (listed, missing_items_monitor.get("/api/level").json()["direction"]) == ([], "missing")
    assert missing_items_monitor.get("/api/level?direction=surplus").json()["flagged"] == 1


def test_the_flag_level_is_explained(site: Running, known_records: Recorder) -> None:
    assert "has no calibration" in Parsed(site.page("/discrepancies")).text
    _calibrate(known_records.engine)
    for number in range(20):
        known_records.pair(f"y{number:02}", predicted=0, expected=5)
    text = Parsed(site.page("/discrepancies?level=0.1")).text
    assert "20 of 20 bins flagged at a level of 10\u202f%, 20 still to be checked" in text
    assert "If every bin were recorded correctly, at most about 2 would be flagged by chance" in text
    assert "Of 1\u202f000 correctly recorded bins, about 50 look this odd." in text


def test_flag_precision_follows_from_the_audits(site: Running, known_records: Recorder) -> None:
    """Bins count even if they are no longer flagged because the inventory was corrected."""
    _calibrate(known_records.engine)
    for bin_id in ("p", "q", "r", "s"):
        known_records.pair(bin_id, predicted=0, expected=5)
    known_records.pair("t", predicted=2, expected=2)  # not flagged
    for bin_id, quantity in (("p", 0), ("q", 5), ("r", 5), ("r", 3), ("t", 1)):
        known_records.audit(bin_id, quantity)
    known_records.expect("p", 0, at=DAY + timedelta(days=1))
    level = site.get("/api/level?alpha=0.1").json()
    assert (level["flagged"], level["unaudited"]) == (3, 1)
    assert (level["checked"], level["inventory_wrong"]) == (3, 2), "p and, as corrected, r; not q"
    assert site.get("/api/level?alpha=0.01").json()["checked"] == 0
    text = Parsed(site.page("/")).text
    assert "The inventory was right in 3 of 7" in text


def test_an_invalid_address_is_explained(site: Running) -> None:
    for query in ("size=many", "direction=up", "level=2", "since=yesterday", "after=nonsense"):
        answer = site.browse(f"/discrepancies?{query}")
        assert (query, answer.status_code) == (query, 400 if "after" in query else 422)
        assert "choose from the form" in answer.text


# Details of a bin


def test_the_page_of_a_bin(site: Running) -> None:
    text = Parsed(site.page("/bin?id=c")).text
    assert "Inventory expects 3 Model counts 1 70\u202f% sure" in text
    assert "2 fewer" in text
    assert "The model gives the expected quantity 5.0\u202f%." in text
    assert "1 count 70\u202f%" in text
    assert "3 expected 5.0\u202f%" in text
    assert "counted 1, 70\u202f% sure, model model-1" in text
    row = next(row for row in Parsed(site.page("/bin?id=c")).rows if row[1:2] == ["3"] and len(row) == 6)
    assert row[2:] == ["1too low", "3right", "blind", "–"]


def test_a_bin_shows_the_articles_of_its_quantity(site: Running, known_records: Recorder) -> None:
    contents = [{"sku": "B00X", "name": "Salt", "quantity": 2}, {"sku": "B00Y", "name": "", "quantity": 1}]
    expectation = NewExpectation(
        bucket=BUCKET, bin_id="c", source="s", etag="e", modified_at=DAY + timedelta(1), quantity=3, contents=contents
    )
    Store(known_records.engine).add_expectations([expectation])
    text = Parsed(site.page("/bin?id=c")).text
    assert "Salt B00X 2" in text
    assert "B00Y B00Y 1" in text
    assert "add up" not in text


@pytest.mark.parametrize(("second", "says"), [(3, "These add up to 5, not 3"), (None, "Pepper B00Y –")])
def test_articles_that_do_not_make_up_the_quantity(
    site: Running, known_records: Recorder, second: int | None, says: str
) -> None:
    contents = [{"sku": "B00X", "name": "Salt", "quantity": 2}, {"sku": "B00Y", "name": "Pepper", "quantity": second}]
    expectation = NewExpectation(
        bucket=BUCKET, bin_id="c", source="s", etag="e", modified_at=DAY + timedelta(1), quantity=3, contents=contents
    )
    Store(known_records.engine).add_expectations([expectation])
    text = Parsed(site.page("/bin?id=c")).text
    assert says in text
    assert ("add up" in text) == (second is not None)


def test_bins_name_their_missing_data(site: Running) -> None:
    assert "Expected quantities" in Parsed(site.page("/bin?id=g")).text
    assert "Inventory expects – not JSON" in Parsed(site.page("/bin?id=g")).text
    failed = Parsed(site.page("/bin?id=h"))
    assert "not counted: file ends early" in failed.text
    assert not [image for image in failed.tags("img") if "photos" in str(image["src"])]
    only_expected = Parsed(site.page("/bin?id=y")).text
    assert "No photo of this bin is recorded yet." in only_expected
    assert "Nobody has counted this bin by hand yet." in only_expected


def test_a_replaced_photo_is_not_requested(site: Running, known_records: Recorder) -> None:
    known_records.count("bin-images/a.jpg", 4, etag="another", at=DAY + timedelta(1))
    page = Parsed(site.page("/bin?id=a"))
    photos = {str(image["src"]) for image in page.tags("img") if "/photos/" in str(image["src"])}
    assert {source.split("?")[0] for source in photos} == {"/photos/10"}
    assert "replaced" in page.text


def test_bin_ids_may_contain_any_characters(site: Running, known_records: Recorder) -> None:
    for name in ("..", "a b", "ü?#&/%2e", "x" * 200):
        known_records.expect(name, 3)
        answer = site.client.get("/bin", params={"id": name})
        assert answer.status_code == 200
        assert f"Bin {name}" in Parsed(answer.text).text


def test_an_unknown_bin_is_explained(site: Running) -> None:
    answer = site.browse("/bin?id=nobody")
    assert answer.status_code == 404
    assert "There is no such bin" in answer.text
    assert site.get("/bin").status_code == 422


def test_unauthorised_users_are_told_how_to_sign_in(monitor: Running, known_records: Recorder) -> None:
    page = Parsed(monitor.page(f"/bin?id=a&bucket={BUCKET}"))
    assert "BINWATCH_MONITOR_TOKEN=…" in page.text
    assert not page.tags("form")
    assert "BINWATCH_MONITOR_TOKEN=…" in Parsed(monitor.page("/login")).text


def test_signing_in_redirects_back(site: Running) -> None:
    links = [link["href"] for link in Parsed(site.page("/bin?id=a&direction=missing")).tags("a")]
    assert links.count("/login?next=/bin%3Fid%3Da%26direction%3Dmissing") == 1
    assert links.count("/login?next=%2Fdiscrepancies") == 1, "this page shows bins without numbers"
    fields = {field.get("name"): field.get("value") for field in Parsed(site.page("/login?next=/models")).tags("input")}
    assert fields["next"] == "/models"
    outside = Parsed(site.page("/login?next=https://evil.example/")).tags("input")
    assert {field.get("name"): field.get("value") for field in outside}["next"] == "/discrepancies"


def test_the_form_contains_the_photo_and_the_next_page(site: Running) -> None:
    _sign_in(site)
    fields = _fields(Parsed(site.page("/audit/bin?id=c&audited=any&direction=missing&flagged=false&prefix=")))
    assert fields["bin"] == "c"
    assert fields["bucket"] == BUCKET
    assert fields["photo"] == "3"
    assert fields["next"] == "/audit/bin?bucket=bins&id=f", "the next unaudited bin"
    assert fields["back"] == "/audit/bin?bucket=bins&id=c"
    assert fields["csrf"]
    assert "auditor" not in fields, "the auditor is the signed-in user"


def test_the_worst_unaudited_bin_comes_first(site: Running, known_records: Recorder) -> None:
    assert site.get("/audit?flagged=true").headers["location"] == "/login?next=%2Faudit%3Fflagged%3Dtrue"
    _sign_in(site)
    assert site.get("/audit").headers["location"] == "/audit/bin?bucket=bins&id=f"
    # Filtering by flags at several levels would reveal to a blind auditor how unlikely each record is.
    assert site.get("/audit?flagged=true&level=0.01").headers["location"] == "/audit/bin?bucket=bins&id=f"
    add_audit(known_records.engine, BUCKET, "f", 5)
    assert site.get("/audit").headers["location"] == "/discrepancies"


# Results of forms


def test_a_saved_audit_is_confirmed_on_the_next_page(site: Running, known_records: Recorder) -> None:
    saved = add_audit(known_records.engine, BUCKET, "f", 5, "Ada").id
    for path in ("/discrepancies?", "/bin?id=a&", "/?"):
        text = Parsed(site.page(f"{path}saved={saved}")).text
        assert "Saved: bin f holds 5 ; the inventory said 40, the model 5." in text
    assert "Saved" not in Parsed(site.page("/discrepancies?saved=12345")).text


def test_a_failed_form_is_explained(site: Running) -> None:
    for problem in FormProblem:
        assert PROBLEMS[problem] in Parsed(site.page(f"/bin?id=a&problem={problem}")).text
        assert PROBLEMS[problem] in Parsed(site.page(f"/login?problem={problem}")).text


# Models and drift


def test_models_show_their_results(site: Running) -> None:
    page = Parsed(site.page("/models"))
    assert "model-1 in use" in page.text
    assert "3 of 4 counts right" in page.text
    rows = [row for row in page.rows if len(row) == 8]
    audits, inventory = rows[1:8], rows[9:16]
    assert audits[3] == ["3", "0", "1", "0", "0", "0", "0", "0"]
    assert inventory[3] == ["3", "0", "1", "0", "1", "0", "0", "0"]
    assert inventory[6] == ["> 5", "0", "0", "0", "0", "0", "1", "1"]


def test_models_name_the_classes_that_they_cannot_predict(drifting: Running, bundle: Path) -> None:
    card = Bundle(bundle).card
    drifting.services.drift.update()
    assert "Cannot predict" not in drifting.page("/models")
    assert drifting.get("/api/models").json()["models"][0]["card"]["never"] == []
    write_card(bundle, card.model_copy(update={"answers": (1, 2, 3, 4, 5)}))
    with running_monitor() as restarted:
        restarted.services.drift.update()
        assert "Cannot predict 0, more than 5: bins that should" in Parsed(restarted.page("/models")).text


def test_shades_follow_the_share_of_the_row() -> None:
    rows = shaded_cells(Confusion(labels=["0", "1"], rows=[[1, 999], [0, 0]], total=1000))
    assert [[cell.shade for cell in row] for row in rows] == [[1, 5], [0, 0]]
    assert [[cell.is_right for cell in row] for row in rows] == [[True, False], [False, True]]


def test_drift_names_its_reference(drifting: Running, sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    drifting.services.drift.update()
    assert drifting.get("/api/drift").json()["reference"] == "training"
    assert drifting.metric("binwatch_drift_reference", reference="training") == 1
    monkeypatch.setenv("BINWATCH_DRIFT_REFERENCE", "same_hours")
    with running_monitor() as running:
        running.services.drift.update()
        report = running.get("/api/drift").json()
        assert (report["state"], report["reference"]) == ("collecting", "same_hours")
        assert report["same_hours"] == {"hours": [], "alarms_from": None}
        assert running.metric("binwatch_drift_reference", reference="same_hours") == 1
        assert running.metric("binwatch_drift_reference_hours") == 0
        latest = {"window": Window.LATEST, "signal": Signal.BRIGHTNESS}
        assert running.metric("binwatch_drift_verdict", **latest, verdict=Verdict.DRIFTED) == 1, "as before"
        page = Parsed(running.page("/drift")).text
        assert "Drift: collecting" in page
        assert "0 of 168. Alarms begin one week after the first of them." in page
        assert "collecting" in Parsed(running.page("/")).text
        with sqlite_records.begin() as connection:
            connection.execute(update(DriftBatch).values(closed_at=datetime.now(UTC) - timedelta(minutes=20)))
        record_photos(sqlite_records, simulated_photos(60, seed=2), prefix="more ")
        running.services.drift.update()
        printed = CliRunner().invoke(app, ["drift", "--strict"], env={"COLUMNS": "200"})
        assert printed.exit_code == 0
        assert "enough photos: 0 of 168; alarms begin a week after the first." in printed.stdout


def test_hours_of_the_week_are_shown_as_ranges() -> None:
    assert formatting.hours_of_week([6, 7, 8, 22, 23, 24, 25, 167]) == "Mon 6–9, Mon 22–24, Tue 0–2, Sun 23–24"
    view = SameHoursView(hours=[30], alarms_from=DAY)
    assert sentences.same_hours_text(view) == (
        "Hours of the week with enough photos in the weeks before: 1 of 168 (Tue 6–7, UTC)."
        " Alarms are raised from 2026-01-01 00:00 UTC on."
    )


def test_drifted_signals_come_first(drifting: Running) -> None:
    drifting.services.drift.update()
    page = Parsed(drifting.page("/drift?window=1h"))
    assert re.search(
        r"Drift: found Since 20\S+ \S+ UTC, photos differ from what the model was measured on: brightness\.", page.text
    )
    assert "Brightness: 120 photos of different bins, recorded since 20" in page.text
    assert sentences.FALSE_ALARMS in page.text
    names = [name for name, _ in sentences.SIGNALS.values()]
    shown = sorted((name for name in names if f" {name} " in page.text), key=lambda name: page.text.rindex(f" {name} "))
    assert shown[0] == "Brightness"
    assert len(page.tags("path")) >= 10, "six continuous signals, each then and now"
    overview = Parsed(drifting.page("/")).text
    assert "Drift found Since 20" in overview


def test_a_trend_is_drawn_and_described(site: Running) -> None:
    page = Parsed(site.page("/?span=1d"))
    chart = next(attributes for _, attributes in page.elements if attributes.get("class") == "chart")
    assert "Agreement went from 50\u202f%" in str(chart["aria-label"])
    assert [row[1:3] for row in page.rows if row[0].endswith("UTC")] == [["6", "50\u202f%"]]


# All pages


def test_pages_of_empty_records_name_the_next_step(monitor: Running) -> None:
    monitor.services.drift.update()
    for path, text in {
        "/": "This page fills as soon as a worker records its first photo",
        "/discrepancies": "Nothing compared yet: a bin comes here once its photo is counted",
        "/models": "Nothing counted yet: a model comes here with its first photo.",
        "/drift": "Drift is judged once photos are counted.",
    }.items():
        assert text in Parsed(monitor.page(path)).text


def test_each_page_reports_an_outage_of_the_database(site: Running, tmp_path: Path) -> None:
    (tmp_path / "records.db").rename(tmp_path / "away.db")
    for path in set(PAGES) - {"/drift"}:  # that page shows the last report, which is kept in memory
        answer = site.browse(path)
        assert answer.status_code == 503
        assert "The records cannot be read" in answer.text
        assert "Reload this page in a minute" in Parsed(answer.text).text
        assert str(tmp_path) not in answer.text


def test_an_unrecorded_audit_is_reported_as_lost(site: Running, tmp_path: Path) -> None:
    _sign_in(site)
    fields = {str(name): value or "" for name, value in _fields(Parsed(site.page("/audit/bin?id=c"))).items()}
    (tmp_path / "records.db").rename(tmp_path / "away.db")
    headers = {"Origin": str(site.client.base_url).rstrip("/"), "Accept": "text/html"}
    answer = site.client.post("/audits", data=fields | {"quantity": "3", "answer": "count"}, headers=headers)
    assert answer.status_code == 503
    assert "This was not saved" in answer.text
    assert "Go back and save again" in answer.text
    assert str(tmp_path) not in answer.text


def test_hostile_text_is_escaped_on_every_page(site: Running, known_records: Recorder) -> None:
    name = HOSTILE.replace("/", "_")
    known_records.count(f"bin-images/{name}.jpg", 1, model=HOSTILE)
    known_records.count(f"bin-images/{name}.jpg", reason=Reason.CORRUPT, detail=HOSTILE, model=HOSTILE)
    contents = [{"sku": HOSTILE, "name": HOSTILE, "quantity": 4}]
    expected = NewExpectation(
        bucket=BUCKET, bin_id=name, source=HOSTILE, etag="e", modified_at=DAY, quantity=4, contents=contents
    )
    Store(known_records.engine).add_expectations([expected])
    saved = add_audit(known_records.engine, BUCKET, name, 3, HOSTILE).id
    _sign_in(site, name=HOSTILE[:60])
    for path in ("/", "/discrepancies", "/models", "/drift", "/audit/bin", "/login", "/expected"):
        query = {"id": name, "audited": "any", "saved": str(saved), "prefix": name[:9], "next": f"/{name}"}
        html = site.client.get(path, params=query, headers={"Accept": HTML}).text
        page = Parsed(html)
        assert HOSTILE not in html
        assert {script["src"] for script in page.tags("script")} <= {"/static/keys.js"}
        assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes)
        assert "49" not in page.text.split("alert")
        sources = [str(image["src"]) for image in page.tags("img")]
        assert all(source.startswith(("/photos/", "/static/")) for source in sources)
        links = [str(link["href"]) for link in page.tags("a") if link.get("href")]
        assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in links)


def test_the_navigation_marks_the_current_page(site: Running) -> None:
    for path in PAGES:
        current = [link["href"] for link in Parsed(site.page(path)).tags("a") if link.get("aria-current") == "page"]
        section = {"bin?id=a": "/discrepancies", "lists": "/"}.get(path.split("/")[1], path)
        assert current == [section]


def test_style_sheets_are_cached_and_revalidated(site: Running) -> None:
    first = site.get("/static/monitor.css")
    assert first.headers["cache-control"] == "no-cache"
    assert site.get("/static/monitor.css", **{"If-None-Match": first.headers["etag"]}).status_code == 304


# Texts


def test_every_enumeration_member_has_a_text() -> None:
    assert set(sentences.SIGNALS) == set(Signal)
    assert set(sentences.WINDOWS) == set(Window)
    assert set(sentences.VERDICTS) == set(Verdict)
    assert set(sentences.DIRECTIONS) == set(Direction)
    assert set(sentences.SPANS) == set(TimeRange)
    assert set(sentences.OUTCOMES) == set(Outcome)
    assert set(PROBLEMS) == set(FormProblem)
    for state in State:
        window = Window.DAY if state in (State.DRIFTED, State.STEADY) else None
        brief = DriftSummary(state=state, at=None, window=window, photos=0, signals=[])
        assert all(sentences.drift_status(brief))


@pytest.mark.parametrize(
    ("p_value", "says"),
    [
        (None, ""),
        (0.00001, "Of 1\u202f000 correctly recorded bins, about 1 look this odd."),
        (0.004, "Of 1\u202f000 correctly recorded bins, about 4 look this odd."),
        (0.5, "Correctly recorded bins often look like this."),
    ],
)
def test_p_values_in_words(p_value: float | None, says: str) -> None:
    assert sentences.p_value_text(p_value) == says


@pytest.mark.parametrize(
    ("chance", "says"), [(0.0, "less than 0.1\u202f%"), (0.0312, "3.1\u202f%"), (0.71, "71\u202f%")]
)
def test_precision_of_displayed_probabilities(chance: float, says: str) -> None:
    assert sentences.probability_text(chance) == says


LEVEL = Level(
    alpha=0.05,
    direction=Suspicion.EITHER,
    compared=200,
    calibrated=200,
    flagged=30,
    unaudited=9,
    false_flags=10,
    checked=0,
    inventory_wrong=0,
)
STEADY = DriftSummary(state=State.STEADY, at=None, window=Window.DAY, photos=200, signals=[])


@pytest.mark.parametrize(
    ("direction", "says"),
    [
        ("either", "10 would be flagged by"),
        ("missing", "flagged as missing items by"),
        ("surplus", "a surplus by chance"),
    ],
)
def test_flag_direction_in_words(direction: str, says: str) -> None:
    assert says in sentences.level_text(LEVEL.model_copy(update={"direction": Suspicion(direction)}), STEADY)


def test_bins_without_p_value_are_mentioned() -> None:
    level = LEVEL.model_copy(update={"compared": 203})
    assert " 3 more bins cannot be flagged: each was counted by a model without calibration, or expects a" in (
        sentences.level_text(level, STEADY)
    )
    assert sentences.chance_text(None).startswith("The expected quantity cannot be judged: the model cannot predict it")
    assert sentences.chance_text(1.0) == "The model gives the expected quantity 100\u202f%."


def test_few_flags_may_all_be_false_alarms() -> None:
    level = LEVEL.model_copy(update={"flagged": 9})
    assert "may all be chance" in sentences.level_text(level, STEADY)
    assert sentences.level_text(level.model_copy(update={"flagged": 30}), STEADY).endswith("look before you correct.")


@pytest.mark.parametrize(
    ("checked", "wrong", "says"),
    [
        (0, 0, "look before you correct."),
        (1, 0, "Of 1 flagged bin that was checked lately, the inventory was wrong in none."),
        (40, 12, "Of 40 flagged bins that were checked lately, the inventory was wrong in 12."),
    ],
)
def test_flag_precision_in_words(checked: int, wrong: int, says: str) -> None:
    level = LEVEL.model_copy(update={"checked": checked, "inventory_wrong": wrong})
    assert sentences.level_text(level, STEADY).endswith(says)


def test_flags_have_a_warning_during_drift() -> None:
    drift = DriftSummary(
        state=State.DRIFTED, at=None, window=Window.DAY, photos=200, signals=[Signal.EXPECTED, Signal.BRIGHTNESS]
    )
    assert "But photos have drifted (brightness)" in sentences.level_text(LEVEL, drift)
    stock = drift.model_copy(update={"signals": [Signal.PREDICTED, Signal.EXPECTED]})
    assert "drifted" not in sentences.level_text(LEVEL, stock), "each quantity is calibrated by itself"


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(-90, "just now"), (59, "just now"), (60, "1 minute ago"), (7_199, "1 hour ago"), (864_000, "10 days ago")],
)
def test_age_in_words(seconds: int, says: str) -> None:
    assert formatting.ago(DAY - timedelta(seconds=seconds), DAY) == says


def test_outcomes_have_colours() -> None:
    css = (Path(__file__).parents[2] / "monitor" / "static" / "monitor.css").read_text(encoding="utf-8")
    assert all(f".badge.{outcome}" in css for outcome in Outcome)
