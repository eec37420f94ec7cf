"""Connections at the end of a server."""

import http.client
import threading
import time

import pytest

from perceiver_jax.serving import running


async def application(scope, receive, send):
    """Answers 'whole' to everything."""
    if scope["type"] == "lifespan":
        for word in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{word}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"whole"})


@pytest.mark.parametrize("is_new", [True, False])
def test_a_request_that_is_on_its_way_when_the_server_ends_is_answered(is_new):
    listening = running.listen("127.0.0.1", 0)
    server = running.make_server(application, grace_seconds=10)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    client = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=30)
    if is_new:
        client.connect()
    else:
        client.request("GET", "/")
        assert client.getresponse().read() == b"whole"
    while not server.server_state.connections:
        time.sleep(0.01)
    server.should_exit = True
    while server.servers[0].is_serving():
        time.sleep(0.01)
    client.request("POST", "/", b"x" * 1_000)
    found = client.getresponse()
    assert (found.status, found.read()) == (200, b"whole")
    client.close()
    thread.join(30)
    assert not thread.is_alive()
