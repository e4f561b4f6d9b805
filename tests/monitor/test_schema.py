"""The API conforms to its OpenAPI description: schemathesis sends valid and invalid requests to every operation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import Engine

from testing.services.s3 import S3
from tests.monitor.conftest import Recorder, Running, record_known, running_monitor
from tests.monitor.drifting import BUCKET

TOKEN = "a token of some length"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MAX_EXAMPLES = 20
"""Number of requests per operation and generation mode."""


# schemathesis draws from the `random` module in its own strategies.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")


@pytest.fixture
def site(postgres_records: Engine, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a monitor of known records with a token, without any photos.

    It uses PostgreSQL, which refuses texts that SQLite accepts.
    """
    s3.client.create_bucket(Bucket=BUCKET)
    recorder = Recorder(postgres_records)
    record_known(recorder)
    recorder.calibrate()
    recorder.pair("j", 1, 5)
    monkeypatch.setenv("BINWATCH_DATABASE_URL", recorder.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    monkeypatch.setenv("BINWATCH_SLICE_DEPTH", "1")
    with running_monitor() as running:
        running.services.drift.update()
        yield running


@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
def test_the_api_conforms_to_its_description(site: Running, mode: schemathesis.GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(site.get("/openapi.json").json())
    operations = [loaded.ok() for loaded in schema.get_all_operations()]
    expected = {"/api/discrepancies", "/api/audits", "/api/bin", "/api/models", "/api/slices"}
    assert expected <= {item.path for item in operations}
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        for operation in operations:
            _ask(operation, mode, session, str(site.client.base_url))


def _ask(
    operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode, session: requests.Session, url: str
) -> None:
    if mode is schemathesis.GenerationMode.NEGATIVE and not (operation.query or operation.body):
        return  # no invalid request exists for it

    @settings(
        max_examples=MAX_EXAMPLES,
        deadline=None,
        derandomize=True,  # reproducible
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=url, session=session, checks=CHECKS)

    ask()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/bin?id=%00", 404),
        ("/api/bin?id=a&bucket=b%00", 404),
        ("/api/discrepancies?prefix=a%00", 200),
        ("/api/discrepancies?prefix=a/%00", 200),
        ("/api/discrepancies?model=%00", 200),
        ("/api/overview?model=%00", 404),
        ("/bin?id=%00", 404),
        ("/discrepancies?prefix=%00", 200),
    ],
)
def test_a_text_that_no_database_can_store_is_not_an_outage(site: Running, path: str, status: int) -> None:
    assert site.get(path).status_code == status
    saved = site.client.post(
        "/api/audits", json={"bin": "a\x00", "quantity": 1}, headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert saved.status_code == 404
