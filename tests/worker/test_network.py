"""Proxies and certificates: boto3 and Celery's polls follow the same settings."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr
from sqlalchemy import Engine as Database
from sqlalchemy import select

from binwatch.records.tables import Count
from binwatch.settings import Settings, process_environment
from testing.brightness import brightness_of, jpeg
from testing.services.faulty_sqs import FaultySqs
from testing.services.s3 import S3
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.queues import queue_url, sqs_client

ROOT = Path(__file__).parent.parent.parent
WITHIN_S = 60
NOWHERE = "http://127.0.0.1:9"
ELSEWHERE = "sqs.invalid"
"""A host name that only a proxy can resolve."""

Run = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def with_sqs_at(settings: Settings, s3: S3) -> Callable[[str], Settings]:
    """Return a function that creates the queues and returns settings with another address of SQS."""
    choose_queues(settings).create()

    def at(endpoint: str) -> Settings:
        broker = endpoint.partition("://")[2]
        overrides = {"sqs_endpoint_url": endpoint, "broker_url": SecretStr(f"sqs://testing:testing@{broker}//")}
        return settings.model_copy(update=overrides)

    return at


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a function that starts a worker with additional environment variables."""
    started: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "worker.log"

    def start(settings: Settings, **environment: str) -> subprocess.Popen[bytes]:
        credentials = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"} | environment
        with log.open("wb") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"],
                cwd=ROOT,
                env=process_environment(settings) | credentials,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.wait()
    print(log.read_text(errors="replace")[-4000:])


def count_one(s3: S3, settings: Settings, client: Any, records: Database, worker: subprocess.Popen[bytes]) -> None:
    """Check that a photo passes through both queues and is recorded."""
    s3.put("bin-images/00001.jpg", jpeg(brightness_of(3)))
    record = (
        '{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","eventVersion":"2.1","s3":{"bucket":{"name":"%s"},'
    )
    record = record % s3.bucket + '"object":{"key":"bin-images/00001.jpg"}}}'
    url = queue_url(client, settings.event_queue)
    client.send_message(QueueUrl=url, MessageBody='{"Records":[' + record + "]}")
    deadline = time.monotonic() + WITHIN_S
    while True:
        with records.connect() as connection:
            result = connection.execute(select(Count.key, Count.predicted)).all()
        if result:
            break
        assert worker.poll() is None, "the worker has ended by itself"
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s"
        time.sleep(0.05)  # polling interval
    assert [tuple(row) for row in result] == [("bin-images/00001.jpg", 3)]


def test_both_queues_use_the_proxy(
    run: Run,
    with_sqs_at: Callable[[str], Settings],
    settings: Settings,
    s3: S3,
    faulty_sqs: FaultySqs,
    sqlite_records: Database,
) -> None:
    worker = run(with_sqs_at(f"http://{ELSEWHERE}"), HTTP_PROXY=faulty_sqs.endpoint_url, NO_PROXY="127.0.0.1")
    count_one(s3, settings, sqs_client(settings), sqlite_records, worker)
    assert {host for host, operation in faulty_sqs.requested if operation == "ReceiveMessage"} == {ELSEWHERE}
    assert faulty_sqs.queues_polled == {settings.event_queue, settings.task_queue}


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy"])
def test_all_proxy_is_used_for_neither_queue(
    run: Run,
    with_sqs_at: Callable[[str], Settings],
    settings: Settings,
    s3: S3,
    sqlite_records: Database,
    name: str,
) -> None:
    worker = run(with_sqs_at(s3.endpoint_url), **{name: NOWHERE})
    count_one(s3, settings, sqs_client(settings), sqlite_records, worker)


def test_no_proxy_hosts(
    run: Run, with_sqs_at: Callable[[str], Settings], settings: Settings, s3: S3, sqlite_records: Database
) -> None:
    worker = run(with_sqs_at(s3.endpoint_url), HTTP_PROXY=NOWHERE, HTTPS_PROXY=NOWHERE, NO_PROXY="localhost,127.0.0.1")
    count_one(s3, settings, sqs_client(settings), sqlite_records, worker)


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_both_queues_accept_a_private_certificate(
    run: Run,
    with_sqs_at: Callable[[str], Settings],
    settings: Settings,
    s3: S3,
    faulty_sqs: FaultySqs,
    sqlite_records: Database,
    tmp_path: Path,
    name: str,
) -> None:
    certificate = with_certificate(faulty_sqs, tmp_path)
    worker = run(with_sqs_at(f"https://127.0.0.1:{faulty_sqs.port}"), **{name: str(certificate)})
    count_one(s3, settings, sqs_client(settings), sqlite_records, worker)
    assert faulty_sqs.queues_polled == {settings.event_queue, settings.task_queue}


def test_untrusted_certificate_is_named(
    run: Run, with_sqs_at: Callable[[str], Settings], faulty_sqs: FaultySqs, tmp_path: Path
) -> None:
    with_certificate(faulty_sqs, tmp_path)
    worker = run(with_sqs_at(f"https://127.0.0.1:{faulty_sqs.port}"))
    assert worker.wait(WITHIN_S) == 1
    last = (tmp_path / "worker.log").read_text().splitlines()[-1]
    assert last.startswith("error: queue ")
    assert "CERTIFICATE_VERIFY_FAILED" in last
    assert "AWS_CA_BUNDLE" in last


def with_certificate(server: FaultySqs, folder: Path) -> Path:
    """Make a server use TLS with a self-signed certificate; return its file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "trusted.pem", folder / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    server.use_tls(context)
    return trusted
