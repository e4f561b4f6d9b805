"""Tests that kill or restart each container, and the whole stack, while photos are uploaded."""

from __future__ import annotations

import re

import pytest

from testing.compose_stack import BUCKET, ROOT, SERVERS, Stack, docker, print_state_on_failure, run, wait_until
from tests.compose.load import Load

PHASE_PHOTOS = 20
"""Photos uploaded in each phase: before, during and after a fault."""


def _started_at(stack: Stack, service: str) -> str:
    return str(stack.container(service)["State"]["StartedAt"])


@pytest.mark.parametrize("fault", ["killed", "restarted"])
@pytest.mark.parametrize("service", SERVERS)
def test_restarted_service_loses_and_repeats_no_photo(stack: Stack, service: str, fault: str) -> None:
    before = _started_at(stack, service)
    with print_state_on_failure(stack), Load(stack, f"{service}-{fault}") as load:
        load.wait_for_uploads(PHASE_PHOTOS)
        if fault == "killed":
            stack.crash(service)
        else:
            docker("restart", "-t", "60", stack.container(service)["Id"])
        wait_until(lambda: _started_at(stack, service) != before, lambda: f"{service} was not started again")
        load.wait_for_uploads(PHASE_PHOTOS)
        wait_until(stack.healthy, lambda: f"not healthy: {stack.states()}")
        load.wait_for_uploads(PHASE_PHOTOS)
    with print_state_on_failure(stack):
        load.check()


def test_s3_accepts_photos_without_rabbitmq_and_sends_events_again_afterwards(stack: Stack) -> None:
    """versitygw alone would neither start without RabbitMQ nor reconnect."""
    with print_state_on_failure(stack), Load(stack, "rabbitmq-away") as load:
        load.wait_for_uploads(PHASE_PHOTOS)
        docker("stop", stack.container("rabbitmq")["Id"])
        load.wait_for_uploads(PHASE_PHOTOS)
        docker("restart", stack.container("s3")["Id"])
        load.wait_for_uploads(PHASE_PHOTOS)
        docker("start", stack.container("rabbitmq")["Id"])
        wait_until(lambda: _is_connected_to_rabbitmq(stack), lambda: "versitygw did not connect to RabbitMQ")
        load.wait_for_uploads(PHASE_PHOTOS)
        wait_until(stack.healthy, lambda: f"not healthy: {stack.states()}")
    with print_state_on_failure(stack):
        load.check()
        docker("stop", stack.container("beat")["Id"])  # reconcile would hide missing events
        with Load(stack, "events-again") as load:
            load.wait_for_uploads(PHASE_PHOTOS)
        load.check()
    docker("start", stack.container("beat")["Id"])
    wait_until(stack.healthy, lambda: f"not healthy: {stack.states()}")


def test_s3_accepts_photos_although_rabbitmq_refuses_its_password(stack: Stack) -> None:
    broker = stack.container("rabbitmq")["Id"]
    docker("exec", broker, "rabbitmqctl", "-q", "change_password", "binwatch", "another1")
    try:
        docker("restart", stack.container("s3")["Id"])
        with print_state_on_failure(stack), Load(stack, "refused") as load:
            load.wait_for_uploads(PHASE_PHOTOS)
        assert "photos are taken without RabbitMQ, and found by reconcile" in stack.logs()
    finally:
        docker("exec", broker, "rabbitmqctl", "-q", "change_password", "binwatch", stack.settings["RABBITMQ_PASSWORD"])
    wait_until(lambda: _is_connected_to_rabbitmq(stack), lambda: "versitygw did not connect to RabbitMQ")
    load.check()


def _is_connected_to_rabbitmq(stack: Stack) -> bool:
    """Whether versitygw is connected to RabbitMQ's port 5672 (1628 in /proc/net/tcp)."""
    sockets = run(
        ["docker", "exec", stack.container("s3")["Id"], "cat", "/proc/net/tcp", "/proc/net/tcp6"], check=False
    )
    return re.search(r":1628 01 ", sockets.stdout) is not None


def test_data_survives_down_and_up(stack: Stack) -> None:
    with Load(stack, "before-all") as load:
        load.wait_for_uploads(PHASE_PHOTOS)
    load.check()
    counts, totals = stack.counts(), stack.sql("SELECT * FROM photo_totals ORDER BY 1, 2, 3")
    stack.compose("stop")
    killed = {name for name, states in stack.states().items() if "exited 137" in states}
    assert not killed, "containers did not stop within their grace period"
    stack.compose("down")
    stack.up()
    assert stack.counts() == counts
    assert stack.sql("SELECT * FROM photo_totals ORDER BY 1, 2, 3") == totals
    photos = stack.data / "photos" / BUCKET
    assert all((photos / key).is_file() for key, _ in counts)
    with Load(stack, "after-all") as load:
        load.wait_for_uploads(PHASE_PHOTOS)
    load.check()


def test_backup_restores_records(stack: Stack) -> None:
    """As in docs/compose.md: a dump while everything runs, restored into a new PostgreSQL."""
    counts, totals = stack.counts(), stack.sql("SELECT * FROM photo_totals ORDER BY 1, 2, 3")
    shell = f"{ROOT}/deploy/compose/compose -p {stack.name} --env-file {stack.folder}/.env"
    dump = stack.folder / "binwatch.dump"
    _bash(f"{shell} exec -T postgres pg_dump -U binwatch -Fc binwatch > {dump}")
    stack.compose("down", "-v")
    _bash(f"{shell} up -d postgres")
    _bash(f"until {shell} exec -T postgres pg_isready -q -h 127.0.0.1 -U binwatch; do sleep 1; done")
    _bash(f"{shell} exec -T postgres pg_restore -U binwatch -d binwatch --clean --if-exists --no-privileges < {dump}")
    stack.up()
    assert stack.counts() == counts
    assert stack.sql("SELECT * FROM photo_totals ORDER BY 1, 2, 3") == totals
    with Load(stack, "after-restore") as load:
        load.wait_for_uploads(PHASE_PHOTOS)
    load.check()


def _bash(command: str) -> None:
    run(["bash", "-c", command])
