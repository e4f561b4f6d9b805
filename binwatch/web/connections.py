"""HTTP connections with time limits for a request's head, its body, and for reading the response.

uvicorn has no such limits, so silent or slow clients could occupy all connections. Beyond
`ConnectionLimits.connections`, the connection that has been waiting longest for a request is closed for a new one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits for clients. Times are in seconds."""

    connections: int
    """Most open connections. Must exceed the limit of requests in flight, so that some connections can be closed."""
    head_s: float = 10.0
    """Time for a request's head, from its first byte or from the start of the connection."""
    silence_s: float = 10.0
    """Time between two pieces of a body."""
    body_s: float = 60.0
    """Time for the whole body."""
    answer_s: float = 30.0
    """Time between two pieces of a response that the client reads."""


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration with limits."""

    limits: ConnectionLimits


class Connection(H11Protocol):
    """uvicorn's protocol with limits."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the timers; close another connection if there are too many."""
        super().connection_made(transport)
        self._limits = cast(ServerConfig, self.config).limits
        # Then pause_writing is called for every byte that the kernel does not accept at once.
        transport.set_write_buffer_limits(high=0)
        self._waiting_since = self.loop.time()
        self._reading: asyncio.TimerHandle | None = None
        self._body_until: float | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._dropped = False
        self._watch_reading()
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        self._cancel_reading()
        self._cancel_writing()

    def data_received(self, data: bytes) -> None:
        """Process data. A piece of a head does not restart its timer; a piece of a body restarts `silence_s`."""
        super().data_received(data)
        self._watch_reading()

    def on_response_complete(self) -> None:
        """Start waiting for the next request."""
        self._waiting_since = self.loop.time()
        super().on_response_complete()
        self._watch_reading()

    def pause_writing(self) -> None:
        """The client reads its response more slowly than it is sent."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """The client has read all that was sent."""
        super().resume_writing()
        self._cancel_writing()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being processed: it has not arrived, or has been answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        """Close the connection that has been waiting longest; this one if all others are processing requests."""
        others = cast("set[Connection]", self.connections) - {self}
        waiting = (one for one in others if one.is_waiting and not one._dropped)
        longest = min(waiting, key=lambda one: one._waiting_since, default=self)
        longest._dropped = True  # it stays in `connections` until the event loop's next iteration
        longest.transport.abort()

    def _watch_reading(self) -> None:
        if self.transport.is_closing():
            self._cancel_reading()
        elif self.conn.their_state is h11.SEND_BODY:
            self._watch_body()
        elif not self.is_waiting or self.timeout_keep_alive_task is not None:
            self._cancel_reading()  # a request is being processed, or uvicorn's keep-alive timer runs
        elif self._reading is None or self._body_until is not None:
            self._cancel_reading()
            self._reading = self.loop.call_later(self._limits.head_s, self._time_out)

    def _watch_body(self) -> None:
        now = self.loop.time()
        until = now + self._limits.body_s if self._body_until is None else self._body_until
        self._cancel_reading()
        self._body_until = until
        self._reading = self.loop.call_at(min(until, now + self._limits.silence_s), self._time_out_body)

    def _cancel_reading(self) -> None:
        self._body_until = None
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _time_out_body(self) -> None:
        if self.flow.read_paused:  # the app is not reading, not the client
            self._watch_body()
        else:
            self._time_out()

    def _time_out(self) -> None:
        """Close the connection, with a 408 if a request has begun."""
        self._cancel_reading()
        cycle = self.cycle if not self.is_waiting else None
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        has_begun = self.conn.trailing_data[0] != b"" or cycle is not None
        if has_begun and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send_time_out()
        self.transport.close()

    def _send_time_out(self) -> None:
        text = b"the request was not complete in time\n"
        headers = [("content-type", "text/plain"), ("content-length", str(len(text))), ("connection", "close")]
        events: list[Any] = [h11.Response(status_code=408, headers=headers, reason=b"Request Timeout"), h11.Data(text)]
        for event in [*events, h11.EndOfMessage()]:
            self.transport.write(self.conn.send(event) or b"")

    def _watch_writing(self) -> None:
        self._cancel_writing()
        unsent = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(self._limits.answer_s, self._check_writing, unsent)

    def _check_writing(self, unsent: int) -> None:
        if self.transport.get_write_buffer_size() >= unsent:
            self.transport.abort()
        else:
            self._watch_writing()

    def _cancel_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
