"""Reads messages from RabbitMQ also if their properties cannot be read.

py-amqp decodes the properties of a message (headers, content type, …) while it reads the frames of a connection. Some
that RabbitMQ takes it cannot decode, such as a content type that is not UTF-8. The error then comes out of the
connection, without the message: a consumer ends or connects anew, is sent the same message, and so on for ever. This
file relies on the insides of amqp 5.4, with which it was tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqp.basic_message import Message

UNREADABLE = "binwatch-unreadable-properties"
"""Header of a message whose own properties could not be read: the error."""

_Load = Callable[[Message, int, Any, int], int]


def tolerate_unreadable() -> None:
    """Have every message read in this process; one with unreadable properties has only the header UNREADABLE."""
    load: _Load = Message._load_properties
    if getattr(load, "tolerant", False):
        return

    def tolerant(self: Message, class_id: int, buffer: Any, offset: int) -> int:
        try:
            return load(self, class_id, buffer, offset)
        except Exception as error:  # whatever is in there
            self.properties = {"application_headers": {UNREADABLE: f"{type(error).__name__}: {error}"}}
            return len(buffer)

    tolerant.tolerant = True  # type: ignore[attr-defined]
    Message._load_properties = tolerant
