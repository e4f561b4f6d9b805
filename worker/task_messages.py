"""Validate the messages in the task queue. Invalid messages would stop Celery's consumer, or be lost.

Celery unpacks the headers of a message without checks, and trusts their values. So each message is validated before
Celery sees it, and only the headers that Binwatch uses are kept.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kombu import compression
from kombu.exceptions import KombuError

from binwatch.errors import BinwatchError, describe_error
from worker.brokers.internals import UNREADABLE_HEADER
from worker.publisher import REASON, SENT_AT

logger = logging.getLogger(__name__)

PREFIX = "binwatch."
"""Prefix of Binwatch's task names. Celery's own tasks, such as celery.chord, are never sent."""
MAX_ETA_DELAY = timedelta(minutes=5)
"""Longer than any retry waits. A task with a later ETA was sent by a machine whose clock is ahead."""
_TASK_ID = re.compile(r"[\w.:-]{1,255}")
_TEXT_HEADERS = frozenset({"lang", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"})
_KEPT_HEADERS = frozenset({"task", "id", "eta", "expires", "retries", SENT_AT, REASON}) | _TEXT_HEADERS
"""Headers that Celery or Binwatch reads. All others are dropped, such as callbacks, stamps and names for logs."""


class InvalidTask(BinwatchError):
    """A message that is not a valid task; the error message is the reason."""


def validate(message: Any, tasks: Mapping[str, Any]) -> None:
    """Validate a message from the task queue, and remove unknown headers. Raises InvalidTask."""
    headers = message.headers
    if not isinstance(headers, dict):
        raise InvalidTask("its headers are not a table")
    if UNREADABLE_HEADER in headers:
        raise InvalidTask(f"its properties cannot be read ({headers[UNREADABLE_HEADER]})")
    name = headers.get("task")
    if not isinstance(name, str) or not name.startswith(PREFIX) or name not in tasks:
        raise InvalidTask(f"there is no task {name!r}")
    task = tasks[name]
    _check_headers(headers, may_expire=bool(getattr(task, "may_expire", False)))
    args, kwargs = _decode_arguments(message)
    try:
        inspect.signature(task.run).bind(*args, **kwargs)
        check = getattr(task, "check", None)
        if check is not None:
            check(*args, **kwargs)
    except Exception as error:
        raise InvalidTask(f"{name} cannot be run with its arguments ({describe_error(error)})") from error
    kept = {name: value for name, value in headers.items() if name in _KEPT_HEADERS}
    message.headers = kept | {"eta": _future_eta(headers)}


def reject_compressed_messages() -> None:
    """Reject compressed messages: Binwatch sends none, and a few bytes can decompress to gigabytes."""

    def reject(_: object) -> bytes:
        raise InvalidTask("it is compressed")

    for name in compression.encoders():
        encoder, _ = compression.get_encoder(name)
        compression.register(encoder, reject, name)


def _check_headers(headers: dict[str, Any], *, may_expire: bool) -> None:
    not_text = [name for name in _TEXT_HEADERS if not isinstance(headers.get(name), str | None)]
    if not_text:
        raise InvalidTask(f"its header {min(not_text)!r} is not text")
    if not isinstance(headers.get("id"), str) or not _TASK_ID.fullmatch(headers["id"]):
        raise InvalidTask(f"its header 'id' is not a task id: {headers.get('id')!r}")
    retries = headers.get("retries")
    if retries is not None and (not isinstance(retries, int) or isinstance(retries, bool) or retries < 0):
        raise InvalidTask(f"its header 'retries' is not a number of retries: {retries!r}")
    if headers.get("timelimit") not in (None, [None, None]):
        raise InvalidTask(f"its header 'timelimit' is not supported: {headers['timelimit']!r}")
    for name in ("eta", "expires"):
        _parse_time(headers, name)
    if headers.get("expires") is not None and not may_expire:
        raise InvalidTask(f"its header 'expires' is not allowed: {headers['task']} must not be dropped")


def _decode_arguments(message: Any) -> tuple[list[Any], dict[str, Any]]:
    if message.content_type != "application/json" or str(message.content_encoding).lower() != "utf-8":
        raise InvalidTask(f"its content is {message.content_type!r} in {message.content_encoding!r}, not JSON in UTF-8")
    try:
        content = message.decode()
    except (KombuError, ValueError, RecursionError) as error:
        raise InvalidTask(f"its content cannot be read ({error})") from error
    match content:
        case [list() as args, dict() as kwargs, dict() | None as embedded]:
            pass
        case _:
            raise InvalidTask("its content is not [arguments, named arguments, options]")
    if any((embedded or {}).values()):
        raise InvalidTask("its content contains further tasks, such as a chain")
    return args, kwargs


def _parse_time(headers: dict[str, Any], name: str) -> datetime | None:
    value = headers.get(name)
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidTask(f"its header {name!r} is not a time: {value!r}") from error


def _future_eta(headers: dict[str, Any]) -> str | None:
    """Return when the task is to start, or None to start it at once."""
    eta, now = _parse_time(headers, "eta"), datetime.now(UTC)
    if eta is None or eta <= now:
        return None
    if eta > now + MAX_ETA_DELAY:
        logger.warning("task %s should wait until %s: a clock is wrong; it is started now", headers["id"], eta)
        return None
    return eta.isoformat()
