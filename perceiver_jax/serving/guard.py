"""What every request passes first: limits on how many there are, how large and how slow."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, MutableMapping
import contextlib
import json
import re
import time
from typing import Any

from perceiver_jax.serving import limits as limits_lib
from perceiver_jax.serving import metrics as metrics_lib

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# The page draws pictures and plays recordings that it holds itself; nothing else is loaded.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_DRAINED = 16  # Times the largest body: what is read of one that is refused.
_RETRY = {"warming up": 5, "ready": 1, "ending": 10}  # Seconds after which to ask again.


class _Refused(Exception):
    """A request that is not taken: its status, and why."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Guard:
    """ASGI middleware that refuses requests before they cost anything, and counts all.

    A body is read whole before the application is called, which so never waits for a client.
    """

    def __init__(
        self,
        app: Any,
        limits: limits_lib.Limits,
        metrics: metrics_lib.Metrics,
        state: Callable[[], str],
        routes: frozenset[str],
        hosts: Collection[str] | None = None,
    ):
        """Wraps an application.

        Args:
            app: that is called with what is taken.
            limits: of requests.
            metrics: where they are counted.
            state: of the server; what is posted is taken when it is 'ready'.
            routes: that are counted by their name; others together.
            hosts: names that requests may have in their header Host; None: any.
        """
        self._app, self._limits, self._metrics = app, limits, metrics
        self._state, self._routes, self._hosts = state, routes, hosts
        self._pending = 0  # Requests that are not answered yet,
        self._pending_bytes = 0  # and bytes of their bodies.

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500
        is_refused = is_whole = False

        async def receive_noting_the_end() -> Message:
            nonlocal is_whole
            message = await receive()
            is_whole = not message.get("more_body", False)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in _HEADERS if header[0] not in given),
                ]
            async with asyncio.timeout(self._limits.upload_seconds):  # For a client to read it.
                await send(message)

        try:
            self._check_source(dict(scope["headers"]))
            if scope["method"] in ("GET", "HEAD"):
                # The server sends no body of what came to it as HEAD.
                await self._app(scope | {"method": "GET"}, receive, send_with_headers)
            else:
                await self._take(scope, receive_noting_the_end, send_with_headers)
        except _Refused as refused:
            is_refused = True
            await self._refuse(refused, send_with_headers)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - begun)
        if is_refused:
            if not is_whole:
                await self._drain(receive)
            await send({"type": "http.response.body"})  # Closes the connection.

    def _check_source(self, headers: dict[bytes, bytes]) -> None:
        """Refuses what pages of other sites have a visitor's browser send.

        Their own name may lead to this computer: then the header Host has it.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = re.sub(r":\d*$", "", host)
        if self._hosts is not None and name not in self._hosts:
            raise _Refused(
                403,
                f"The request is for {name[:80]!r}; expected one of {sorted(self._hosts)}. Start "
                "the server with --hosts=NAME if it is called so.",
            )
        if headers.get(b"sec-fetch-site") == b"cross-site" and (
            headers.get(b"sec-fetch-mode") != b"navigate"
        ):
            raise _Refused(403, "The request is of a page of another site. Use the server's own.")

    async def _take(self, scope: Message, receive: Receive, send: Send) -> None:
        """Reads a body and calls the application, if there is room."""
        if self._state() != "ready":
            raise _Refused(503, f"The server is {self._state()}. Ask again.")
        if self._pending >= self._limits.queue:
            raise _Refused(503, f"{self._pending} requests are waiting. Ask again.")
        self._pending += 1
        self._metrics.in_flight.inc()
        size = 0
        try:
            size = self._claimed(scope)
            self._check_size(size)
            self._pending_bytes += size
            try:
                async with asyncio.timeout(self._limits.upload_seconds):
                    body = await self._read(receive, size)
            except TimeoutError as error:
                seconds = self._limits.upload_seconds
                message = f"The request did not come within {seconds:g} s. Send it faster."
                raise _Refused(408, message) from error
            self._pending_bytes += len(body) - size
            size = len(body)
            await self._app(scope, _replayed(body, receive), send)
        finally:
            self._pending -= 1
            self._pending_bytes -= size
            self._metrics.in_flight.dec()

    def _claimed(self, scope: Message) -> int:
        """How long the body is by its header; 0 if that doesn't say so."""
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if not claimed.isdigit() or len(claimed) > 18:
            raise _Refused(400, "The header Content-Length is no number. Correct it.")
        return int(claimed)

    def _check_size(self, more: int, so_far: int = 0) -> None:
        """Refuses a body of so many bytes, of which some are counted already."""
        if more + so_far > self._limits.upload_mb << 20:
            raise _Refused(
                413, f"The body has more than {self._limits.upload_mb} MiB. Send less at once."
            )
        if self._pending_bytes + more > self._limits.pending_mb << 20:
            raise _Refused(503, "Requests that wait take all the room. Ask again.")

    async def _read(self, receive: Receive, claimed: int) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Refused(400, "The client went away.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > claimed:  # Of a length that was not said before.
                self._check_size(size - claimed, claimed)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _refuse(self, refused: _Refused, send: Send) -> None:
        body = json.dumps({"detail": str(refused)}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if refused.status == 503:
            headers.append((b"retry-after", str(_RETRY[self._state()]).encode()))
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _drain(self, receive: Receive) -> None:
        """Reads on, and keeps nothing: who is cut off while it sends does not read the answer.

        As long as an upload may take, but not without an end.
        """
        left = _DRAINED * self._limits.upload_mb << 20
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.upload_seconds):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Returns what gives a body that was read, and then what still comes."""
    is_given = False

    async def give() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give
