"""An in-memory broker with exactly the interface of worker/brokers/base.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from kombu.connection import Connection

from worker.brokers.base import DeadLetter, DeadLetterQueue, EventMessage, EventQueue, TaskQueue


class StubDeadLetters(DeadLetterQueue):
    """Dead letters in memory, and a function that returns a body to its original queue."""

    def __init__(self, send: Callable[[str], object]) -> None:
        self.letters: list[DeadLetter] = []
        self._send = send

    def messages(self) -> list[DeadLetter]:
        return list(self.letters)

    def redrive(self) -> int:
        return sum(self._send(letter.body) is None for letter in self.delete(lambda _: True))

    def delete(self, is_selected: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        for letter in filter(is_selected, self.messages()):
            self.letters.remove(letter)
            yield letter


class StubEventQueue(EventQueue):
    """Event messages in memory."""

    def __init__(self) -> None:
        self.is_open = False
        self.in_flight: set[str] = set()
        self._messages: SimpleQueue[EventMessage] = SimpleQueue()
        self._sent = 0
        self._dead = StubDeadLetters(self.send)

    def send(self, body: str) -> None:
        self._sent += 1
        self._messages.put(EventMessage(str(self._sent), body, None))

    def create(self) -> list[str]:
        """Do nothing: in-memory queues need no creation."""
        return []

    def depths(self) -> tuple[int, int]:
        return self._messages.qsize(), len(self._dead.letters)

    def dead_letters(self) -> DeadLetterQueue:
        return self._dead

    def open(self) -> None:
        self.is_open = True

    def receive(self, wait_s: int) -> list[EventMessage]:
        try:
            message = self._messages.get(timeout=wait_s) if wait_s else self._messages.get_nowait()
        except Empty:
            return []
        self.in_flight.add(message.id)
        return [message]

    def delete(self, messages: Sequence[EventMessage]) -> None:
        self.in_flight -= {message.id for message in messages}

    def requeue(self, messages: Sequence[EventMessage], after_s: float = 0.0) -> None:
        self.delete(messages)
        for message in messages:
            self._messages.put(message)

    def dead_letter(self, message: EventMessage, reason: str) -> None:
        self._dead.letters.append(DeadLetter("events-dead", reason, str(message.body)))

    def close(self) -> None:
        self.is_open = False


class StubTaskQueue(TaskQueue):
    """Tasks in kombu's in-memory transport."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._dead = StubDeadLetters(lambda body: None)

    def create(self) -> list[str]:
        """Do nothing: kombu creates its queues."""
        return []

    def depths(self) -> tuple[int, int]:
        with Connection("memory://") as connection, connection.channel() as channel:
            return int(channel.queue_declare(queue=self._name).message_count), len(self._dead.letters)

    def dead_letters(self) -> DeadLetterQueue:
        return self._dead

    def celery_options(self) -> dict[str, Any]:
        return {"broker_transport": "memory", "broker_transport_options": {"polling_interval": 0.01}}

    def prepare(self, *, to_consume: bool = False) -> None:
        """Do nothing: there is nothing to check."""

    @property
    def dead_letter_target(self) -> str:
        return self._name + "-dead"

    def is_redelivered(self, request: Any) -> bool:
        return False

    def rejection(self, error: Exception) -> Reject:
        return Reject(error, requeue=True)

    def dead_letter(self, app: Celery, message: Any, reason: str) -> None:
        body = message.body if isinstance(message.body, str) else bytes(message.body).decode()
        self._dead.letters.append(DeadLetter(self.dead_letter_target, reason, body))
