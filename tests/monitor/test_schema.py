"""The API does what its description says: schemathesis asks it everything, well and badly, on records of every kind."""

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
EXAMPLES = 20
"""Of each operation and way of asking."""


# schemathesis draws from the `random` module in its own strategies.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")


@pytest.fixture
def asked(postgres_records: Engine, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A monitor of known records on which the API may write; none of the photos is there.

    PostgreSQL, since it refuses texts that SQLite takes.
    """
    s3.client.create_bucket(Bucket=BUCKET)
    known = Recorder(postgres_records)
    record_known(known)
    known.calibrate()
    known.pair("j", 1, 5)
    monkeypatch.setenv("BINWATCH_DATABASE_URL", known.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_MONITOR_TOKEN", TOKEN)
    monkeypatch.setenv("BINWATCH_SLICE_DEPTH", "1")
    with running_monitor() as running:
        running.services.drift.update()
        yield running


@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
def test_the_api_conforms_to_its_description(asked: Running, mode: schemathesis.GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(asked.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations()]
    wanted = {"/api/discrepancies", "/api/audits", "/api/bin", "/api/models", "/api/slices"}
    assert wanted <= {one.path for one in operations}
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        for operation in operations:
            _ask(operation, mode, session, str(asked.client.base_url))


def _ask(
    operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode, session: requests.Session, url: str
) -> None:
    if mode is schemathesis.GenerationMode.NEGATIVE and not (operation.query or operation.body):
        return  # there is nothing to get wrong

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,  # what is found today is found tomorrow
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
def test_a_text_that_no_database_can_store_is_not_an_outage(asked: Running, path: str, status: int) -> None:
    assert asked.get(path).status_code == status
    saved = asked.client.post(
        "/api/audits", json={"bin": "a\x00", "quantity": 1}, headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert saved.status_code == 404
