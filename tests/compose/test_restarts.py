"""Each container is killed and restarted while photos come, and then all of them at once."""

from __future__ import annotations

import re

import pytest

from testing.compose_stack import BUCKET, ROOT, SERVERS, Stack, docker, print_state_on_failure, run, wait_until
from tests.compose.load import Load

AROUND = 20
"""Photos before, during and after."""


def _started(stack: Stack, service: str) -> str:
    return str(stack.container(service)["State"]["StartedAt"])


@pytest.mark.parametrize("how", ["killed", "restarted"])
@pytest.mark.parametrize("service", SERVERS)
def test_no_photo_is_lost_or_counted_twice(stack: Stack, service: str, how: str) -> None:
    before = _started(stack, service)
    with print_state_on_failure(stack), Load(stack, f"{service}-{how}") as load:
        load.wait_for(AROUND)
        if how == "killed":
            stack.crash(service)
        else:
            docker("restart", "-t", "60", stack.container(service)["Id"])
        wait_until(lambda: _started(stack, service) != before, lambda: f"{service} was not started again")
        load.wait_for(AROUND)
        wait_until(stack.healthy, lambda: f"not healthy: {stack.states()}")
        load.wait_for(AROUND)
    with print_state_on_failure(stack):
        load.check()


def test_s3_takes_photos_while_rabbitmq_is_away_and_tells_of_them_again_afterwards(stack: Stack) -> None:
    """versitygw itself would neither start without RabbitMQ nor connect anew."""
    with print_state_on_failure(stack), Load(stack, "rabbitmq-away") as load:
        load.wait_for(AROUND)
        docker("stop", stack.container("rabbitmq")["Id"])
        load.wait_for(AROUND)
        docker("restart", stack.container("s3")["Id"])
        load.wait_for(AROUND)
        docker("start", stack.container("rabbitmq")["Id"])
        wait_until(lambda: _tells(stack), lambda: "versitygw did not connect to RabbitMQ")
        load.wait_for(AROUND)
        wait_until(stack.healthy, lambda: f"not healthy: {stack.states()}")
    with print_state_on_failure(stack):
        load.check()
        docker("stop", stack.container("beat")["Id"])  # it would hide that no events come
        with Load(stack, "events-again") as load:
            load.wait_for(AROUND)
        load.check()
    docker("start", stack.container("beat")["Id"])
    wait_until(stack.healthy, lambda: f"not healthy: {stack.states()}")


def test_s3_takes_photos_though_rabbitmq_refuses_it(stack: Stack) -> None:
    broker = stack.container("rabbitmq")["Id"]
    docker("exec", broker, "rabbitmqctl", "-q", "change_password", "binwatch", "another1")
    try:
        docker("restart", stack.container("s3")["Id"])
        with print_state_on_failure(stack), Load(stack, "refused") as load:
            load.wait_for(AROUND)
        assert "photos are taken without RabbitMQ, and found by reconcile" in stack.logs()
    finally:
        docker("exec", broker, "rabbitmqctl", "-q", "change_password", "binwatch", stack.settings["RABBITMQ_PASSWORD"])
    wait_until(lambda: _tells(stack), lambda: "versitygw did not connect to RabbitMQ")
    load.check()


def _tells(stack: Stack) -> bool:
    """Whether versitygw is connected to RabbitMQ's port 5672 (1628 in /proc/net/tcp)."""
    answer = run(["docker", "exec", stack.container("s3")["Id"], "cat", "/proc/net/tcp", "/proc/net/tcp6"], check=False)
    return re.search(r":1628 01 ", answer.stdout) is not None


def test_everything_is_still_there_after_all_was_taken_down(stack: Stack) -> None:
    with Load(stack, "before-all") as load:
        load.wait_for(AROUND)
    load.check()
    counts, totals = stack.counts(), stack.sql("SELECT * FROM photo_totals ORDER BY 1, 2, 3")
    stack.compose("stop")
    killed = {name for name, states in stack.states().items() if "exited 137" in states}
    assert not killed, "they did not stop within their grace period"
    stack.compose("down")
    stack.up()
    assert stack.counts() == counts
    assert stack.sql("SELECT * FROM photo_totals ORDER BY 1, 2, 3") == totals
    photos = stack.data / "photos" / BUCKET
    assert all((photos / key).is_file() for key, _ in counts)
    with Load(stack, "after-all") as load:
        load.wait_for(AROUND)
    load.check()


def test_a_backup_brings_back_all_that_was_there(stack: Stack) -> None:
    """As docs/compose.md says: a dump while everything runs, and into a PostgreSQL that has just been made."""
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
        load.wait_for(AROUND)
    load.check()


def _bash(line: str) -> None:
    run(["bash", "-c", line])
