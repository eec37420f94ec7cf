"""Who may ask a server, by what a browser says of a request."""

import asyncio

import httpx
import pytest

from perceiver_jax.serving import app, limits, service

HOSTS = ("127.0.0.1", "model.example")  # That requests may be for.


@pytest.fixture(scope="module")
def answer(digits):
    """Returns what a server, which is not warm, answers."""
    served = service.Service(digits, limits.Limits())
    transport = httpx.ASGITransport(app=app.build_app(served, hosts=HOSTS))

    async def ask(method, path, headers):
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
            return await client.request(method, path, headers=headers)

    yield lambda *words, **headers: asyncio.run(ask(*words, headers))
    served.end()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "", "127.0.0.2"])
def test_names_of_other_sites_that_lead_here_are_refused(answer, host):
    for method, path in (("GET", "/model"), ("POST", "/predict"), ("GET", "/metrics")):
        found = answer(method, path, host=host)
        assert found.status_code == 403
        assert f"for '{host.partition(':')[0]}'; expected one of ['127" in found.json()["detail"]


@pytest.mark.parametrize("host", ["127.0.0.1", "Model.example:80"])
def test_own_names_are_answered(answer, host):
    found = answer("GET", "/model", host=host)
    assert found.status_code == 200 and "access-control-allow-origin" not in found.headers
    assert answer("GET", "/docs/", host=host).status_code == 404  # Nobody is sent to that name.


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "no-cors", 403),
        ("cross-site", "cors", 403),
        ("cross-site", "navigate", 200),  # A link.
        ("same-origin", "cors", 200),
        ("none", "navigate", 200),
    ],
)
def test_pages_of_other_sites_can_not_ask(answer, site, mode, status):
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
    assert answer("GET", "/model", **headers).status_code == status
