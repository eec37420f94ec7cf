"""Runs the server: the socket, connections that are slow or too many, signals."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http import h11_impl

from perceiver_jax import config

MAX_CONNECTIONS = 2**14
_OTHER_FILES = 256  # Those that the process has open beside connections.
_HEADER_SECONDS = 15.0  # Until a connection has sent the header of a request.
_MORE_SECONDS = 0.5
_LAST_SECONDS = 0.5  # For requests that are on their way when the server ends.
_IDLE_SECONDS = 30  # That a connection is kept between two requests.
_PORTS = config.Range(0, 2**16 - 1, whole=True)
_MAX_HEADER = 32 * 2**10  # Bytes.
_BACKLOG = 2048
_END = b"content-length: 0\r\nconnection: close\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n" + _END
_LATE = b"HTTP/1.1 408 Request Timeout\r\n" + _END


class Connection(h11_impl.H11Protocol):
    """Uvicorn's connection, which ends where a client is slow with its header or one too many."""

    most = MAX_CONNECTIONS
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for the header."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._end(_FULL)
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Goes on to wait while the header is incomplete."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._wait()
        else:
            self._stop_waiting()

    def shutdown(self) -> None:
        """Ends a connection when the server ends, after what it is sending, or has sent just now.

        Closed at once, a request that is still to be read would be lost without an answer.
        """
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_LAST_SECONDS, self._end_last)
        else:
            super().shutdown()

    def _end_last(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops to wait."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(_HEADER_SECONDS, self._wait_on)

    def _wait_on(self) -> None:
        """Waits until what came is read: in a crowd the server may be late, not the client."""
        self._patience = self.loop.call_later(_MORE_SECONDS, self._end, _LATE)

    def _end(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; port 0 is any that is free.

    Raises:
        UserError: it can't.
    """
    config.check({"port": port}, port=_PORTS)
    try:
        (family, *_, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise config.UserError(
            f"Can't listen at host {host!r}, port {port}: {error.strerror or error}. Choose "
            "another --port (0 is any that is free), or --host."
        ) from error


def run(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT: then answers what is accepted, and takes no more.

    Args:
        server: what `make_server` returned.
        listening: what `listen` returned.
    """
    # Each connection is an open file; what is refused for their number must not break what is not.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _OTHER_FILES
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    Connection.most = min(MAX_CONNECTIONS, max(allowed - _OTHER_FILES, 16))
    # Uvicorn raises the signal again when all is done, for whoever else wants to know.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)


def make_server(app: Any, grace_seconds: int | float) -> uvicorn.Server:
    """Returns a server, which ends when its `should_exit` is set.

    Args:
        app: an ASGI application.
        grace_seconds: after which what is not answered at the end is given up.
    """
    settings = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=round(grace_seconds),
        h11_max_incomplete_event_size=_MAX_HEADER,
    )
    # Of requests that are none it would write a line each, as many as somebody likes.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return uvicorn.Server(settings)
