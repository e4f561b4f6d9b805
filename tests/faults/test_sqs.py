"""Tests of failures of SQS and of the network: when a worker starts, while it is idle, and under load."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from pydantic import SecretStr

from testing.services.faulty_sqs import ALL_OPERATIONS, Fault, FaultySqs, login_page, refuse, reset, silent_for
from testing.services.proxy import Proxy
from testing.services.rabbitmq import free_ports
from tests.faults.conftest import Took
from tests.faults.sqs_stack import SqsStack
from worker.brokers.sqs.queues import queue_url

PHOTOS = 60
FAILED_REQUESTS = 8
"""More requests than boto3 sends, with retries, for one call of the intake and one of Celery."""
FAULTS: dict[str, Fault] = {
    "500": refuse(500, "InternalFailure"),
    "503": refuse(503, "ServiceUnavailable"),
    "throttled": refuse(400, "ThrottlingException"),
    "expired": refuse(403, "ExpiredTokenException"),
    "denied": refuse(403, "AccessDeniedException"),
    "page": login_page,
    "reset": reset,
    "silent": silent_for(3),
}
NAME_OUTAGE_S = 6
NAME = "sqs.test"
WORKER_WITH_FAILING_DNS = f"""
import socket, sys
from pathlib import Path

look_up = socket.getaddrinfo

def getaddrinfo(host, *rest, **more):
    if host == {NAME!r}:
        if Path({{flag!r}}).exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        host = "127.0.0.1"
    return look_up(host, *rest, **more)

socket.getaddrinfo = getaddrinfo
sys.argv = ["worker", "run"]
from worker.__main__ import main
main()
"""


def publish_load(stack: SqsStack, first: int) -> None:
    numbers = range(first, first + PHOTOS)
    stack.publish([body for n in numbers for body in (stack.photo(n), stack.metadata(n, n % 5))])


@pytest.mark.parametrize("name", FAULTS)
def test_polls_fail_at_start_when_idle_and_under_load(
    sqs_stack: SqsStack, faulty_sqs: FaultySqs, took: Took, name: str
) -> None:
    """The same worker recovers each time."""
    count = FAILED_REQUESTS if name != "silent" else 4
    faults = [FAULTS[name]] * count
    faulty_sqs.fail(*faults)
    worker = sqs_stack.start()
    sqs_stack.publish([sqs_stack.photo(0)])
    sqs_stack.wait_until(lambda: sqs_stack.recorded() == 1)
    assert faulty_sqs.remaining_faults == 0, "nothing failed at the start"

    faulty_sqs.fail(*faults)
    sqs_stack.wait_until(lambda: faulty_sqs.remaining_faults == 0)
    sqs_stack.publish([sqs_stack.photo(1)])
    sqs_stack.wait_until(lambda: sqs_stack.recorded() == 2)

    publish_load(sqs_stack, 2)
    sqs_stack.wait_until(lambda: sqs_stack.recorded() >= 12)
    faulty_sqs.fail(*faults)
    began = time.monotonic()
    sqs_stack.wait_until(lambda: faulty_sqs.remaining_faults == 0)
    assert worker.poll() is None
    sqs_stack.settle()
    sqs_stack.check()
    took(f"{PHOTOS} photos recorded {time.monotonic() - began:.1f} s after the first of {count} failed requests")


def test_requests_of_all_kinds_fail_under_load(sqs_stack: SqsStack, faulty_sqs: FaultySqs, took: Took) -> None:
    """Receiving, sending, deleting and holding back tasks may each fail."""
    sqs_stack.start()
    publish_load(sqs_stack, 0)
    sqs_stack.wait_until(lambda: sqs_stack.recorded() >= 10)
    faults: list[Fault | None] = []
    for name in sorted(FAULTS.keys() - {"silent"}):
        faults += [FAULTS[name], None, FAULTS[name], None, None]
    began = time.monotonic()
    faulty_sqs.fail(*faults * 2, operations=ALL_OPERATIONS)
    sqs_stack.wait_until(lambda: faulty_sqs.remaining_faults == 0)
    sqs_stack.settle()
    sqs_stack.check()
    took(f"2 of 5 requests of any kind failed; all recorded {time.monotonic() - began:.1f} s after the first")


def test_finished_tasks_are_deleted_once_sqs_answers(sqs_stack: SqsStack, faulty_sqs: FaultySqs) -> None:
    """All deletions fail until every photo is recorded. No task may be received again after its visibility time-out."""
    faulty_sqs.fail_until_told(refuse(403, "AccessDeniedException"), operations={"DeleteMessage"})
    sqs_stack.start()
    publish_load(sqs_stack, 0)
    sqs_stack.wait_until(lambda: sqs_stack.recorded() == PHOTOS)
    assert sqs_stack.waiting(sqs_stack.settings.task_queue) > 0, "nothing was left to delete"
    faulty_sqs.fail_until_told(None)
    sqs_stack.settle()
    sqs_stack.check()
    assert sqs_stack.waiting() == 0


def test_worker_stops_although_sqs_refuses_requeues(
    sqs_stack: SqsStack, faulty_sqs: FaultySqs, s3_proxy: Proxy, tmp_path: Path
) -> None:
    """Tasks held back for a backoff are delivered again after their visibility time-out."""
    url = queue_url(sqs_stack.client, sqs_stack.settings.task_queue)
    sqs_stack.client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "20"})
    original_settings = sqs_stack.settings
    sqs_stack.settings = original_settings.model_copy(
        update={"s3_endpoint_url": f"http://127.0.0.1:{s3_proxy.port}", "retry_wait_s": 60.0, "s3_timeout_s": 1.0}
    )
    worker = sqs_stack.start()
    s3_proxy.refuse()
    sqs_stack.publish([sqs_stack.photo(number) for number in range(20)])
    log = tmp_path / "worker-0.log"
    # Each of three groups is received twice, the second time as its retry.
    sqs_stack.wait_until(lambda: log.read_text(errors="replace").count("] received") >= 6)
    faulty_sqs.fail_until_told(refuse(500, "InternalFailure"), operations={"ChangeMessageVisibility"})
    sqs_stack.stop(worker)
    output = log.read_text(errors="replace")
    assert output.count("tasks cannot be requeued on SQS") == 1
    assert "Traceback" not in output
    faulty_sqs.fail_until_told(None)
    sqs_stack.settings = original_settings
    sqs_stack.start()
    sqs_stack.settle()
    sqs_stack.check()


def test_sqs_name_resolution_outage(sqs_stack: SqsStack, faulty_sqs: FaultySqs, tmp_path: Path) -> None:
    """The name cannot be resolved at the first poll, while idle, and under load."""
    flag = tmp_path / "name-is-gone"
    endpoint = f"{NAME}:{faulty_sqs.port}"
    sqs_stack.settings = sqs_stack.settings.model_copy(
        update={
            "sqs_endpoint_url": f"http://{endpoint}",
            "broker_url": SecretStr(f"sqs://testing:testing@{endpoint}//"),
        }
    )

    def start_outage() -> None:
        flag.touch()
        faulty_sqs.fail(*[reset] * 10, operations=ALL_OPERATIONS)  # existing connections need no name resolution

    def wait_and_end_outage() -> None:
        until = time.monotonic() + NAME_OUTAGE_S
        sqs_stack.wait_until(lambda: time.monotonic() >= until)
        flag.unlink()
        faulty_sqs.fail()

    worker = sqs_stack.start(program=WORKER_WITH_FAILING_DNS.format(flag=str(flag)))
    for recorded in (1, 2):
        start_outage()
        sqs_stack.publish([sqs_stack.photo(recorded)])
        wait_and_end_outage()
        sqs_stack.wait_until(lambda recorded=recorded: sqs_stack.recorded() == recorded)
    publish_load(sqs_stack, 3)
    sqs_stack.wait_until(lambda: sqs_stack.recorded() >= 12)
    start_outage()
    wait_and_end_outage()
    assert worker.poll() is None
    sqs_stack.wait_until(lambda: sqs_stack.recorded() == PHOTOS + 2)
    sqs_stack.wait_until(lambda: sqs_stack.waiting() == 0)
    sqs_stack.check()


def test_health_reports_failing_polls_and_recovery(sqs_stack: SqsStack, faulty_sqs: FaultySqs) -> None:
    (port,) = free_ports(1)
    sqs_stack.settings = sqs_stack.settings.model_copy(update={"worker_port": port})
    sqs_stack.start()
    sqs_stack.wait_until(lambda: problems(port) == {})
    faulty_sqs.fail_until_told(refuse(403, "ExpiredTokenException"))
    sqs_stack.wait_until(lambda: "task polls" in problems(port))
    assert "ExpiredTokenException" in problems(port)["task polls"]
    sqs_stack.publish([sqs_stack.photo(0)])
    faulty_sqs.fail_until_told(None)
    sqs_stack.wait_until(lambda: problems(port) == {})
    sqs_stack.settle()
    sqs_stack.check()


def problems(port: int) -> dict[str, str]:
    """The problems that a worker's /healthz reports, by part."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as response:
            by_part: dict[str, str] = json.load(response)["problems"]
    except urllib.error.HTTPError as error:
        with error:
            by_part = json.load(error)["problems"]
    return by_part
