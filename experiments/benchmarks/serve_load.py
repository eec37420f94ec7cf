"""Load for the server's benchmark: requests on connections that are kept, their times and answers.

Only the standard library: what makes the load takes as little as it can of the cores that it shares
with the server.
"""

from collections.abc import Iterator, Sequence
from concurrent import futures
import http.client
import json
import random
import threading
import time
from typing import Any, NamedTuple

_BOUNDARY = "part-of-the-benchmark"
_CONTENT_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"


class Answer(NamedTuple):
    """What came of a request.

    Attributes:
      pictures: numbers of those that were sent.
      seconds: from when it was due to its answer.
      status: of HTTP; 0 if there was no answer.
      predictions: what was answered.
    """

    pictures: tuple[int, ...]
    seconds: float
    status: int
    predictions: list[dict[str, Any]]


class Load(NamedTuple):
    """What came of many requests, and how long they took together."""

    answers: list[Answer]
    seconds: float


def form(name: str, files: Sequence[bytes]) -> bytes:
    """Returns the body of a request with a part for each file."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    return b"".join([head + file + b"\r\n" for file in files]) + f"--{_BOUNDARY}--\r\n".encode()


def closed(
    port: int, bodies: Sequence[tuple[tuple[int, ...], bytes]], threads: int, seconds: float
) -> Load:
    """Sends one request after another on each of some connections.

    Args:
      port: of the server.
      bodies: numbers of the pictures and the body of each request; they take turns.
      threads: connections.
      seconds: after which no more is sent.
    """
    end = time.perf_counter() + seconds
    turns = _turns(bodies)
    return _run(port, threads, lambda: (time.perf_counter(), next(turns)), end)


def opened(
    port: int,
    bodies: Sequence[tuple[tuple[int, ...], bytes]],
    threads: int,
    seconds: float,
    rate: float,
) -> Load:
    """Sends requests at random times, whether or not earlier ones are answered.

    Args:
      port: of the server.
      bodies: as of `closed`.
      threads: connections, which bound how many are on their way at once.
      seconds: after which no more is sent.
      rate: requests a second, on average.
    """
    begun, rng, lock = time.perf_counter(), random.Random(0), threading.Lock()
    turns, due = _turns(bodies), begun

    def take():
        nonlocal due
        with lock:
            due += rng.expovariate(rate)
            return due, next(turns)

    return _run(port, threads, take, begun + seconds)


def _turns(bodies: Sequence[Any]) -> Iterator[Any]:
    """Gives them again and again, to any thread."""
    lock, number = threading.Lock(), 0

    class Turns:
        def __next__(self):
            nonlocal number
            with lock:
                number += 1
                return bodies[number % len(bodies)]

    return Turns()


def _run(port, threads, take, end):
    def send_all():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        answers = []
        while True:
            due, (pictures, body) = take()
            if due >= end:
                connection.close()
                return answers
            time.sleep(max(0.0, due - time.perf_counter()))
            status, predictions = _send(connection, body)
            seconds = time.perf_counter() - due
            answers.append(Answer(pictures, seconds, status, predictions))

    begun = time.perf_counter()
    with futures.ThreadPoolExecutor(threads) as pool:
        found = [pool.submit(send_all) for _ in range(threads)]
        answers = [answer for each in found for answer in each.result()]
    return Load(answers, time.perf_counter() - begun)


def _send(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, list[dict[str, Any]]]:
    try:
        connection.request("POST", "/predict", body, {"Content-Type": _CONTENT_TYPE})
        answer = connection.getresponse()
        content = answer.read()
    except OSError:
        connection.close()
        return 0, []
    found = json.loads(content).get("predictions", []) if answer.status == 200 else []
    return answer.status, found
