"""Validates the messages in the task queue. Invalid ones would stop Celery's consumer, or be lost.

Celery unpacks the headers of a message without checks, and trusts their values. So each message is validated before
Celery sees it, and only headers with a meaning in Binwatch are kept.
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
from worker.brokers.internals import UNREADABLE
from worker.publisher import REASON, SENT_AT

logger = logging.getLogger(__name__)

PREFIX = "binwatch."
"""Prefix of the names of Binwatch's tasks. Celery's own, such as celery.chord, are never sent."""
LONGEST_WAIT = timedelta(minutes=5)
"""No retry waits this long. A task with a longer wait was sent by a machine whose clock is ahead."""
_ID = re.compile(r"[\w.:-]{1,255}")
_CELERYS = frozenset({"lang", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"})
_KEPT = frozenset({"task", "id", "eta", "expires", "retries", SENT_AT, REASON}) | _CELERYS
"""Headers that Celery or Binwatch reads. All others are dropped, such as callbacks, stamps and names for the logs."""


class NoTask(BinwatchError):
    """A message that is not a valid task, and the reason."""


def admit(message: Any, tasks: Mapping[str, Any]) -> None:
    """Validate a message from the task queue, and remove unknown headers. Raises NoTask if it is not a valid task."""
    headers = message.headers
    if not isinstance(headers, dict):
        raise NoTask("its headers are not a table")
    if UNREADABLE in headers:
        raise NoTask(f"its properties cannot be read ({headers[UNREADABLE]})")
    name = headers.get("task")
    if not isinstance(name, str) or not name.startswith(PREFIX) or name not in tasks:
        raise NoTask(f"there is no task {name!r}")
    task = tasks[name]
    _check_headers(headers, may_expire=bool(getattr(task, "may_expire", False)))
    args, kwargs = _arguments(message)
    try:
        inspect.signature(task.run).bind(*args, **kwargs)
        check = getattr(task, "check", None)
        if check is not None:
            check(*args, **kwargs)
    except Exception as error:
        raise NoTask(f"{name} cannot be run with its arguments ({describe_error(error)})") from error
    message.headers = {name: value for name, value in headers.items() if name in _KEPT} | {"eta": _eta(headers)}


def refuse_compressed() -> None:
    """Refuse compressed messages: Binwatch sends none, and a few bytes can decompress to gigabytes."""
    for name in compression.encoders():
        encoder, _ = compression.get_encoder(name)
        compression.register(encoder, _refuse, name)


def _refuse(_: object) -> bytes:
    raise NoTask("it is compressed")


def _check_headers(headers: dict[str, Any], *, may_expire: bool) -> None:
    text = {name for name in _CELERYS if not isinstance(headers.get(name), str | None)}
    if text:
        raise NoTask(f"its header {min(text)!r} is not text")
    if not isinstance(headers.get("id"), str) or not _ID.fullmatch(headers["id"]):
        raise NoTask(f"its header 'id' is not a task id: {headers.get('id')!r}")
    retries = headers.get("retries")
    if retries is not None and (not isinstance(retries, int) or isinstance(retries, bool) or retries < 0):
        raise NoTask(f"its header 'retries' is not a number of retries: {retries!r}")
    if headers.get("timelimit") not in (None, [None, None]):
        raise NoTask(f"its header 'timelimit' is not supported: {headers['timelimit']!r}")
    for name in ("eta", "expires"):
        _time(headers, name)
    if headers.get("expires") is not None and not may_expire:
        raise NoTask(f"its header 'expires' is not allowed: {headers['task']} must not be dropped")


def _arguments(message: Any) -> tuple[list[Any], dict[str, Any]]:
    if message.content_type != "application/json" or str(message.content_encoding).lower() != "utf-8":
        raise NoTask(f"its content is {message.content_type!r} in {message.content_encoding!r}, not JSON in UTF-8")
    try:
        content = message.decode()
    except (KombuError, ValueError, RecursionError) as error:
        raise NoTask(f"its content cannot be read ({error})") from error
    match content:
        case [list() as args, dict() as kwargs, dict() | None as embedded]:
            pass
        case _:
            raise NoTask("its content is not [arguments, named arguments, options]")
    if any((embedded or {}).values()):
        raise NoTask("its content contains further tasks, such as a chain")
    return args, kwargs


def _time(headers: dict[str, Any], name: str) -> datetime | None:
    value = headers.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise NoTask(f"its header {name!r} is not a time: {value!r}") from error
    return moment


def _eta(headers: dict[str, Any]) -> str | None:
    """Time at which the task is to start; None: at once."""
    eta, now = _time(headers, "eta"), datetime.now(UTC)
    if eta is None or eta <= now:
        return None
    if eta > now + LONGEST_WAIT:
        logger.warning("task %s should wait until %s: a clock is wrong; it is started now", headers["id"], eta)
        return None
    return eta.isoformat()
