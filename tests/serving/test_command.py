"""`python -m experiments.serve`, from its start to SIGTERM."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from experiments import serve
from perceiver_jax.pretrained import write
from tests.serving import live

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(digits, files, tmp_path_factory):
    """An exported folder with an example."""
    path = tmp_path_factory.mktemp("serve") / "digits"
    write.write_own(digits, path)
    (path / "examples").mkdir()
    (path / "examples" / "seven.png").write_bytes(files[0])
    return path


def start(folder, *flags):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.serve", f"--model={folder}", "--port=0", *flags],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_is_ready_when_it_is_warm_and_answers_what_it_took_after_sigterm(folder, digits, files):
    process = start(folder, "--demo", "--batch_sizes=1", "--processes=1", "--host=0.0.0.0")
    try:
        line = process.stdout.readline()
        port = int(re.fullmatch(rf"serving {folder} at http://0.0.0.0:(\d+)\n", line)[1])
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            first = client.get("/health")
            early = client.post("/predict", files={"image": files[0]})
            assert (first.status_code, early.status_code) == (503, 503)
            assert first.json() == {"state": "warming up"} and early.headers["retry-after"] == "5"
            assert re.fullmatch(r"ready after \d+\.\d s\n", process.stdout.readline())
            assert client.get("/health").status_code == 200
            assert client.get("/examples/seven.png").content == files[0]

            # One request is not here whole when the signal comes.
            body = json.dumps({"examples": [{"image": [[[0]] * 28] * 28}]}).encode()
            head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
                slow.sendall(head.encode() + body[:-1])
                live.eventually(lambda: "in_flight 1.0" in client.get("/metrics").text)
                process.send_signal(signal.SIGTERM)
                live.eventually(lambda: _refuses(port))
                slow.sendall(body[-1:])
                answer = b""
                while part := slow.recv(65536):
                    answer += part
        assert answer.startswith(b"HTTP/1.1 200") and b'"predictions":[{"label"' in answer
        assert process.wait(20) == 0
        assert "whoever reaches 0.0.0.0 can use this server" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def _refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=/nowhere"], "There is no '/nowhere'"),
        (["--model=x", "--batch_sizes=1,x"], "batch_sizes is '1,x'; expected numbers"),
        (["--model=x", "--queue=0"], "queue is 0; expected at least 1"),
        (["--model=x", "--processes=0"], "processes is 0; expected at least 1"),
        (["--model=x", "--batch_wait_ms=-1"], "batch_wait_ms is -1"),
        (["--model=x", "--port=99999"], "port is 99999; expected at least 0 and at most 65535. Ch"),
        (["--model=x", "--port=-5"], "port is -5; expected at least 0 and at most 65535. Change"),
        (["--model=x", "--host=no.such.host.invalid"], "Can't listen at host 'no.such"),
    ],
)
def test_mistakes_end_with_code_2(capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        serve.main([*flags, "--port=0"] if "/nowhere" in flags[0] else [*flags])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            serve.main(["--model=/nowhere", f"--port={port}"])
    assert f"Can't listen at host '127.0.0.1', port {port}" in capsys.readouterr().err
