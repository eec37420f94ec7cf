"""A server within the tests' own process: the real routes, sockets and processes that decode."""

import contextlib
import dataclasses
import threading
import time

import httpx

from perceiver_jax.serving import app, limits, running, service


@dataclasses.dataclass
class Live:
    """A server that runs."""

    url: str
    port: int
    served: service.Service
    client: httpx.Client

    def predict(self, files=None, **options):
        """Posts files as a form, or other options as httpx has them."""
        params = {key: options.pop(key) for key in ("k", "num_windows", "arrays") if key in options}
        return self.client.post("/predict", files=files, params=params, **options)


@contextlib.contextmanager
def serving(run, demo=False, wait_until_ready=True, processes=1, **given):
    """Gives a server of a run; `given` are limits."""
    served = service.Service(
        run, limits.Limits(**given), batch_sizes=(1, 4), num_processes=processes, with_page=demo
    )
    listening = running.listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    warm, errors = threading.Event(), []

    def on_warm(error):
        errors.append(error)
        warm.set()

    server = running.make_server(app.build_app(served, demo, on_warm), grace_seconds=10)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            if wait_until_ready:
                assert warm.wait(60) and errors == [None], errors
            yield Live(url, port, served, client)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def eventually(condition, seconds=10):
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
