"""The server answers what `Run.predict` does, and outlives what is no request."""

import base64
from concurrent import futures
import contextlib
import io
import itertools
import json
import re
import socket
import struct
import time
import zlib

import numpy as np
import PIL.Image
import pytest

from perceiver_jax.serving import running
from tests.serving import live


def parts(files, name="image"):
    return [(name, ("x", file)) for file in files]


def assert_same(found, expected):
    """The same classes with the same probabilities, but for how batches of other sizes round."""
    assert [list(answer) for answer in found] == [list(answer) for answer in expected]
    for answer, other in zip(found, expected, strict=True):
        for name in answer:
            assert [x for x, _ in answer[name]] == [x for x, _ in other[name]]
            probabilities = [[p for _, p in x[name]] for x in (answer, other)]
            np.testing.assert_allclose(*probabilities, atol=2e-6)


def raw(port, *sent, wait=5.0):
    """Sends bytes; returns what comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        for part in sent:
            connection.sendall(part)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def lives(server, files):
    answer = server.predict(parts(files[:1]))
    assert answer.status_code == 200, answer.text
    return True


# ---------------------------------------------------------------- answers


def test_one_file_is_answered_exactly_as_predict_does(server, digits, files):
    for file in files:
        answer = server.predict(parts([file]))
        assert answer.json() == json.loads(json.dumps({"predictions": digits.predict(file)}))


def test_many_files_are_answered_in_their_order(server, digits, files):
    answer = server.predict(parts(files), k=3)
    assert_same(answer.json()["predictions"], digits.predict(*files, k=3))


def test_json_is_answered_as_the_same_files(server, digits, files):
    examples = [{"image": {"base64": base64.b64encode(file).decode()}} for file in files[:3]]
    pixels = np.asarray(PIL.Image.open(io.BytesIO(files[3])))
    examples.append({"image": pixels.tolist()})
    answer = server.predict(json={"examples": examples}, k=10)
    assert_same(answer.json()["predictions"], digits.predict(*files[:3], pixels, k=10))


def test_no_answer_is_lost_or_another_requests_under_load(server, digits, files):
    expected = digits.predict(*files)

    def ask(number):
        chosen = [(number * 7 + i) % len(files) for i in range(number % 6 + 1)]
        found = server.predict(parts([files[i] for i in chosen])).json()["predictions"]
        assert_same(found, [expected[i] for i in chosen])
        return len(found)

    with futures.ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(ask, range(90))) == sum(i % 6 + 1 for i in range(90))


# ---------------------------------------------------------------- what else it says


def test_what_it_is_and_does_is_told(server, files):
    assert server.client.get("/health").json() == {"state": "ready"}
    lives(server, files)
    model = server.client.get("/model").json()
    assert model["inputs"] == [
        {"name": "image", "kind": "image", "may_lack": False, "size": 28, "channels": 1}
        | {"mean": 0.13}
    ]
    assert model["outputs"][0]["classes"] == list("0123456789")
    metrics = server.client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    (answered,) = re.findall(r'requests_total\{route="/predict",status="200"\} (\S+)', metrics.text)
    assert float(answered) >= 1
    assert "perceiver_batch_rows_bucket" in metrics.text and "perceiver_ready 1.0" in metrics.text


def test_openapi_and_its_page_name_the_inputs_and_load_nothing_else(server):
    schema = server.client.get("/openapi.json").json()
    content = schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert list(content["multipart/form-data"]["schema"]["properties"]) == ["image", "file"]
    examples = content["application/json"]["schema"]["properties"]["examples"]
    assert list(examples["items"]["properties"]) == ["image"]
    page = server.client.get("/docs")
    assert "POST /predict" in page.text and "how many classes" in page.text
    assert not re.search("(src|href)=[\"']?(http|//)", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_openapi_has_the_parameters_that_the_model_has_a_use_for_and_how_it_refuses(server):
    paths = server.client.get("/openapi.json").json()["paths"]
    posted = {name: path["post"] for name, path in paths.items() if "post" in path}
    listed = {n: [x["name"] for x in route["parameters"]] for n, route in posted.items()}
    assert listed == {"/predict": ["k"], "/attention": ["layer", "picture"], "/over_time": []}
    (k,) = posted["/predict"]["parameters"]
    assert k["schema"] == {"type": "integer", "minimum": 1, "maximum": 2**31 - 1, "default": 5}
    statuses = {name: set(route["responses"]) for name, route in posted.items()}
    expected = {"200", "400", "403", "408", "413", "415", "422", "500", "503"}
    assert statuses == dict.fromkeys(posted, expected) | {"/over_time": expected | {"404"}}
    refused = posted["/predict"]["responses"]["422"]["content"]["application/json"]["schema"]
    assert refused["properties"] == {"detail": {"type": "string"}}


@pytest.mark.parametrize("path", ["/", "/health", "/model", "/nowhere"])
def test_head_is_answered_as_get_without_a_body(server, path):
    head, get = server.client.head(path), server.client.get(path)
    assert head.status_code == get.status_code and not head.content
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_pictures_of_attention_are_png_files(server, files):
    answer = server.client.post("/attention?layer=0", files=parts(files[:1])).json()
    assert [(x["input"], x["of"].split()[0]) for x in answer["pictures"]] == [
        ("image", "the"),
        ("image", "all"),
        *(("image", "latent"),) * 3,
    ]
    assert sum(x["share"] for x in answer["pictures"]) == pytest.approx(5, abs=1e-4)
    pictures = [PIL.Image.open(io.BytesIO(base64.b64decode(x["png"]))) for x in answer["pictures"]]
    assert len({picture.size for picture in pictures}) == 1
    assert len({picture.tobytes() for picture in pictures}) == 5
    ask = server.client.post
    alone = ask("/attention?layer=0&picture=1", files=parts(files[:1]))
    assert alone.headers["content-type"] == "image/png"
    assert alone.content == base64.b64decode(answer["pictures"][1]["png"])
    assert ask("/attention?picture=5", files=parts(files[:1])).status_code == 422


# ---------------------------------------------------------------- wrong and hostile requests


def png_of(width, height, data=b""):
    """A PNG file that claims a size."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "page": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run",
    "zip": b"PK\3\4" + bytes(99),
    "claims": png_of(100_000, 100_000),
    "claims_most": png_of(2**31 - 1, 2**31 - 1),
    "bomb": png_of(60_000, 1_000, bytes(1_001)),
    "header_alone": b"\x89PNG\r\n\x1a\n",
    "gif": b"GIF89a" + b"\xff" * 7 + b",\0\0\0\0\xff\xff\xff\xff\0" + bytes(99),
    "tiff": b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 900,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_and_the_server_lives(server, files, kind):
    answer = server.predict(parts([files[0], HOSTILE[kind]]))
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith("Can't read example 1")
    assert "/tmp" not in answer.text
    assert lives(server, files)


def test_files_cut_anywhere_are_refused(server, files):
    (file, *_) = files
    for length in range(0, len(file) - 12, 23):
        assert server.predict(parts([file[:length]])).status_code == 422
    assert lives(server, files)


@pytest.mark.parametrize("path", ["/etc/hostname", "file:///etc/hostname", "http://127.0.0.1:1/"])
def test_no_path_or_address_is_opened(server, path):
    for answer in (
        server.predict(data={"image": path}, files={}),
        server.predict(json={"examples": [path]}),
        server.predict(json={"examples": [{"image": path}]}),
        server.client.post("/attention", json={"examples": [path]}),
    ):
        assert answer.status_code in (415, 422)
    answer = server.predict(json={"examples": [path]})
    assert "never opened" in answer.json()["detail"]
    for place in ("/page/../app.py", "/page/%2e%2e%2fapp.py", f"/examples/{path}", "/page/app.py"):
        assert server.client.get(place).status_code == 404


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("predict?k=0", "k is 0; expected at least 1. Change it."),
        ("predict?k=x", "k is 'x'; expected a whole number, at least 1. Change it."),
        ("predict?kk=2", "Unknown parameter 'kk'; expected one of ['k']. Did you mean 'k'?"),
        ("attention?layer=", "layer is ''; expected a whole number, at least 0. Change it."),
        ("attention?k=2", "Unknown parameter 'k'; expected one of ['layer', 'picture']."),
        ("over_time?k=2", "Unknown parameter 'k'; expected none. Leave it out."),
    ],
)
def test_a_wrong_parameter_is_refused_in_a_sentence(server, files, asked, said):
    answer = server.client.post(f"/{asked}", files=parts(files[:1]))
    assert (answer.status_code, answer.json()) == (422, {"detail": said})


def test_wrong_options_and_routes_are_refused(server, files):
    for params in ({"k": 0}, {"k": "x"}, {"num_windows": 0}, {"arrays": "pickle"}):
        assert server.predict(parts(files[:1]), **params).status_code == 422
    answer = server.predict(parts(files[:1]), num_windows=2)
    assert answer.status_code == 422 and "none of the inputs" in answer.json()["detail"]
    assert server.client.post("/attention?layer=1", files=parts(files[:1])).status_code == 422
    assert server.client.post("/attention", files=parts(files[:2])).status_code == 422
    assert server.client.post("/over_time", files=parts(files[:1])).status_code == 404
    assert server.client.get("/predict").status_code == 405
    assert server.client.delete("/model").status_code == 405
    assert server.client.get("/nowhere").status_code == 404
    assert server.predict(content=b"x", headers={"content-type": "text/plain"}).status_code == 415


def test_too_much_is_refused(server, files):
    assert server.predict(parts(files[:1] * 65)).status_code == 413
    large = bytes(2**21)
    answer = server.predict(parts([large]))
    assert answer.status_code == 413 and "more than 2 MiB" in answer.json()["detail"]
    numbers = b'{"examples":[[' + b"[0]," * 400_000 + b"[0]]]}"
    answer = server.predict(content=numbers, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and "model reads far less" in answer.json()["detail"]
    chunks = (bytes(2**16) for _ in range(40))  # Whose length is not said before.
    assert server.predict(content=chunks).status_code == 413
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n"
    assert raw(server.port, head).startswith(b"HTTP/1.1 400")
    assert lives(server, files)


def test_a_client_that_still_sends_what_is_too_much_reads_why(server, files):
    size, sent = 2**21 + 1, 0
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size
    with socket.create_connection(("127.0.0.1", server.port), timeout=9) as connection:
        connection.sendall(head)
        received = connection.recv(12)  # At once.
        while sent < size:  # In more than a second.
            sent += connection.send(bytes(min(2**18, size - sent)))
            time.sleep(0.18)
        while part := connection.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 413") and b"more than 2 MiB" in received
    assert lives(server, files)


def test_a_body_without_an_end_is_cut_off(server, files):
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % 2**40
    with socket.create_connection(("127.0.0.1", server.port), timeout=9) as connection:
        connection.sendall(head)
        with pytest.raises(ConnectionError):
            for _ in range(2**10):
                connection.sendall(bytes(2**20))
    assert lives(server, files)


def test_what_is_no_http_is_refused(server, files):
    for sent in (
        b"\0" * 99 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x: " + b"y" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % i for i in range(20_000)),
    ):
        try:
            assert raw(server.port, sent)[:12] in (b"HTTP/1.1 400", b"")
        except ConnectionError:
            pass  # It closed before it had all.
    assert lives(server, files)


def test_a_body_that_comes_too_slowly_is_given_up(server, files):
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"
    assert raw(server.port, head, wait=9).startswith(b"HTTP/1.1 408")
    assert lives(server, files)


def test_headers_that_come_too_slowly_and_one_connection_too_many_are_given_up(
    server, files, monkeypatch
):
    monkeypatch.setattr(running, "_HEADER_SECONDS", 0.2)
    request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    for sent in ([b""], [b"GET / HTTP/1.1\r\nhost:"], [request, b"GET /hea"]):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            for part in sent:
                connection.sendall(part)
                if part == request:
                    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass
    server.client.get("/health")  # One that is kept.
    monkeypatch.setattr(running.Connection, "most", 1)
    received = raw(server.port, b"")
    assert received.startswith(b"HTTP/1.1 503") and b"retry-after: 1\r\n" in received
    assert lives(server, files)


def test_a_client_that_goes_away_harms_nobody(server, files):
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\nabc"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head)
    body = b"".join(
        b'--b\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n%b\r\n' % file
        for file in files
    )
    kind = b"content-type: multipart/form-data; boundary=b"
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: %d\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head % (kind, len(body) + 7) + body + b"--b--\r\n")
    assert lives(server, files)
    live.eventually(
        lambda: "perceiver_requests_in_flight 0.0" in server.client.get("/metrics").text
    )


def test_crowds_get_answers_or_503_and_the_server_lives(digits, files):
    with live.serving(digits, queue=3) as server:

        def ask(number):
            answer = server.predict(parts(files[number % 9 : number % 9 + 1]))
            assert answer.status_code == 200 or "retry-after" in answer.headers
            return answer.status_code

        with futures.ThreadPoolExecutor(24) as threads:
            statuses = list(threads.map(ask, range(500)))
        assert set(statuses) == {200, 503}
        assert lives(server, files)
        limit = 3 * 2**20 // 2
        with futures.ThreadPoolExecutor(4) as threads:
            answers = threads.map(server.predict, itertools.repeat(parts([bytes(limit)]), 4))
        assert {answer.status_code for answer in answers} <= {422, 503}


def encoded(picture):
    file = io.BytesIO()
    picture.save(file, format="png")
    return file.getvalue()


def test_what_takes_too_long_or_too_much_to_read_costs_its_request_alone(digits, files):
    noise = encoded(PIL.Image.effect_noise((3_000, 3_000), 99))
    with live.serving(digits, decode_seconds=0.05, pixels=3_000**2) as server:
        answer = server.predict(parts([noise]))
        assert answer.status_code == 422 and "more than 0.05 s" in answer.json()["detail"]
        answer = server.predict(parts([png_of(3_001, 3_000)]))
        assert answer.status_code == 422 and "3001 x 3000 pixels" in answer.json()["detail"]
        assert lives(server, files)
    bomb = encoded(PIL.Image.new("L", (8_000, 8_000)))
    assert len(bomb) < 99_999
    with live.serving(digits, decode_mb=256) as server:
        answer = server.predict(parts([bomb]))
        assert answer.status_code == 413 and "256 MiB of memory" in answer.json()["detail"]
        assert lives(server, files)
