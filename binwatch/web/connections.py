"""HTTP connections with time limits for receiving a request's head and body, and for sending the response.

uvicorn has no such limits, so silent or slow clients could occupy all connections. When a new connection exceeds
`ConnectionLimits.connections`, the connection that has been waiting longest for a request is closed; if none is
waiting, the new one.
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
    """Limits for clients. Timeouts are in seconds."""

    connections: int
    """Maximum number of open connections. It must exceed the limit of requests in flight, so that some connections
    are idle and can be closed."""
    head_s: float = 10.0
    """Timeout for a request's head, from its first byte or from the start of the connection."""
    silence_s: float = 10.0
    """Timeout for the next chunk of a body."""
    body_s: float = 60.0
    """Timeout for the whole body."""
    answer_s: float = 30.0
    """Timeout for the client to read the next chunk of a response."""


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, with limits for clients."""

    limits: ConnectionLimits


class Connection(H11Protocol):
    """uvicorn's HTTP protocol, with limits for clients."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the timers; close a connection if there are too many."""
        super().connection_made(transport)
        self._limits = cast(ServerConfig, self.config).limits
        # With this limit, pause_writing is called whenever the kernel does not accept all data at once.
        transport.set_write_buffer_limits(high=0)
        self._waiting_since = self.loop.time()
        self._read_timer: asyncio.TimerHandle | None = None
        self._body_deadline: float | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._dropped = False
        self._update_read_timer()
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        self._stop_read_timer()
        self._stop_write_timer()

    def data_received(self, data: bytes) -> None:
        """Process data. A chunk of a body restarts the timeout `silence_s`; a chunk of a head restarts nothing."""
        super().data_received(data)
        self._update_read_timer()

    def on_response_complete(self) -> None:
        """Start waiting for the next request."""
        self._waiting_since = self.loop.time()
        super().on_response_complete()
        self._update_read_timer()

    def pause_writing(self) -> None:
        """Start the write timer: the client reads its response more slowly than it is sent."""
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        """Stop the write timer: the client has read everything that was sent."""
        super().resume_writing()
        self._stop_write_timer()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being processed: the next one has not arrived, or the last one has been answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        """Close the connection that has waited longest, or this one if all others are processing requests."""
        others = cast("set[Connection]", self.connections) - {self}
        waiting = (other for other in others if other.is_waiting and not other._dropped)
        longest = min(waiting, key=lambda other: other._waiting_since, default=self)
        longest._dropped = True  # it stays in `connections` until the event loop's next iteration
        longest.transport.abort()

    def _update_read_timer(self) -> None:
        if self.transport.is_closing():
            self._stop_read_timer()
        elif self.conn.their_state is h11.SEND_BODY:
            self._restart_body_timer()
        elif not self.is_waiting or self.timeout_keep_alive_task is not None:
            self._stop_read_timer()  # a request is being processed, or uvicorn's keep-alive timer runs
        elif self._read_timer is None or self._body_deadline is not None:
            self._stop_read_timer()
            self._read_timer = self.loop.call_later(self._limits.head_s, self._time_out)

    def _restart_body_timer(self) -> None:
        now = self.loop.time()
        deadline = now + self._limits.body_s if self._body_deadline is None else self._body_deadline
        self._stop_read_timer()
        self._body_deadline = deadline
        self._read_timer = self.loop.call_at(min(deadline, now + self._limits.silence_s), self._handle_body_timeout)

    def _stop_read_timer(self) -> None:
        self._body_deadline = None
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _handle_body_timeout(self) -> None:
        if self.flow.read_paused:  # the app is slow, not the client
            self._restart_body_timer()
        else:
            self._time_out()

    def _time_out(self) -> None:
        """Close the connection, after sending a 408 if a request has begun."""
        self._stop_read_timer()
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

    def _start_write_timer(self) -> None:
        self._stop_write_timer()
        unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._limits.answer_s, self._handle_write_timeout, unsent)

    def _handle_write_timeout(self, unsent: int) -> None:
        """Abort the connection if none of the `unsent` bytes has been read since the timer started."""
        if self.transport.get_write_buffer_size() >= unsent:
            self.transport.abort()
        else:
            self._start_write_timer()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
