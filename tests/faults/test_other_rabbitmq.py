"""Tests with a RabbitMQ that has another default queue type, limited permissions, or little disk space or memory."""

from __future__ import annotations

import json
import uuid
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from pydantic import SecretStr

from testing.services.rabbitmq import RabbitMQ, free_ports
from tests.faults.stack import Stack
from worker.brokers.choice import choose_queues

PHOTOS = 40


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> str:
    """A virtual host with quorum queues as the default type."""
    name = f"quorum-{uuid.uuid4().hex[:8]}"
    rabbitmq.control("add_vhost", name, "--default-queue-type", "quorum")
    rabbitmq.control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    return name


def test_queues_are_quorum_queues_by_default(stack: Stack, rabbitmq: RabbitMQ, vhost: str) -> None:
    """Celery needs a classic queue: it sets a prefetch limit for the whole channel, which quorum queues refuse."""
    stack.settings = stack.settings.model_copy(update={"broker_url": SecretStr(rabbitmq.url[:-1] + vhost)})
    stack.publish([body for n in range(PHOTOS) for body in (stack.photo(n), stack.metadata(n, n % 5))])
    stack.start()
    stack.settle()
    stack.check()


def test_user_without_configure_permission_uses_existing_queues(stack: Stack, rabbitmq: RabbitMQ) -> None:
    choose_queues(stack.settings).create()
    stack.publish([body for n in range(PHOTOS) for body in (stack.photo(n), stack.metadata(n, n % 5))])
    stack.publish(["no event"])
    restrict_permissions(rabbitmq, stack, configure="^$", write=".*", read=".*")
    stack.start()
    stack.settle()
    lines = [line for line in (stack.folder / "worker-0.log").read_text().splitlines() if "permission" in line]
    settings = stack.settings
    queues = (
        settings.event_queue,
        settings.event_dead_letter_queue,
        settings.task_queue,
        f"{settings.task_queue}-dead",
    )
    assert [all(repr(name) in line for name in queues) for line in lines] == [True], "one line names all queues"
    assert "RabbitMQ's user lacks the permission to configure the queues" in lines[0]
    (letter,) = stack.dead_letters()
    assert letter.body == "no event"
    stack.check()


def restrict_permissions(rabbitmq: RabbitMQ, stack: Stack, **permissions: str) -> None:
    """Let the workers connect as a user with these permissions."""
    user = f"user-{uuid.uuid4().hex[:8]}"
    rabbitmq.control("add_user", user, "secret")
    rabbitmq.control(
        "set_permissions", "-p", "/", user, *(permissions[name] for name in ("configure", "write", "read"))
    )
    url = rabbitmq.url.replace("guest:guest", f"{user}:secret")
    stack.settings = stack.settings.model_copy(update={"broker_url": SecretStr(url)})


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_rabbitmq_is_low_at_start(stack: Stack, rabbitmq: RabbitMQ, kind: str) -> None:
    """/healthz reports it while event messages wait to become tasks. Afterwards, each photo is counted once."""
    (port,) = free_ports(1)
    stack.settings = stack.settings.model_copy(update={"worker_port": port})
    stack.publish([body for n in range(PHOTOS) for body in (stack.photo(n), stack.metadata(n, n % 5))])
    with rabbitmq.alarm(kind):
        stack.start()
        stack.wait_until(lambda: "RabbitMQ accepts no messages" in str(problems(port).get("event queue")))
        assert problems(port).keys() == {"event queue", "task queue"}
        assert "disk or memory is nearly full" in problems(port)["task queue"]
        assert stack.recorded() == 0
    stack.settle()
    stack.check()


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_rabbitmq_runs_low_under_load(stack: Stack, rabbitmq: RabbitMQ, kind: str) -> None:
    (port,) = free_ports(1)
    stack.settings = stack.settings.model_copy(update={"worker_port": port})
    stack.publish([body for n in range(8 * PHOTOS) for body in (stack.photo(n), stack.metadata(n, n % 5))])
    stack.start()
    stack.wait_until(lambda: stack.recorded() >= 8)
    with rabbitmq.alarm(kind):
        stack.wait_until(lambda: "task queue" in problems(port))
    stack.wait_until(lambda: not problems(port))
    stack.settle()
    stack.check()


def problems(port: int) -> dict[str, str]:
    """The problems that a worker's /healthz reports, by part."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            body = answer.read()
    except HTTPError as error:
        body = error.read()
    by_part: dict[str, str] = json.loads(body)["problems"]
    return by_part
