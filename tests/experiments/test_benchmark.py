"""The benchmark's processes and figures; times themselves are never tested."""

import json
import sys
import textwrap

import pytest

from experiments import arguments, benchmark, benchmark_protocol

MINI = "experiments/configs/modelnet40.py:mini"


DIES = """
from experiments import benchmark_protocol
steps = []
def step():
    steps.append(1)
    assert len(steps) < 2, "out of memory"
facts = {"compile_seconds": 0.0, "executed_flops": None}
benchmark_protocol.serve(lambda settings: (facts, {"step": step}))
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A step by ours and the plain forms; one peer is not there, another fails in its second."""
    config = arguments.load_config(MINI)
    with config.unlocked():
        config.data.modalities.points.num_points = 31
        config.model.encoder.update(num_latents=5, latent_channels=8, num_self_attends=1)
    folder = tmp_path_factory.mktemp("peer")
    (folder / "dies.py").write_text(DIES)
    start_peer = benchmark.start_peer

    def start(python, settings):
        if settings["peer"] == "hf":
            return start_peer(python, settings)
        path = {"PYTHONPATH": str(folder)}
        return benchmark_protocol.Subject(sys.executable, "dies", {}, path)

    peers = ["plain", "hf", "perceiver_pytorch"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "start_peer", start)
        return benchmark.benchmark(config, {}, peers, "/nowhere/python", "train", 2, 1)


def test_ours_and_plain_forms_have_the_same_model_and_other_operations(result):
    ours, plain = result["subjects"]["ours"], result["subjects"]["plain"]
    assert ours["parameters"] == plain["parameters"] > 0
    assert ours["model_flops"] == plain["model_flops"] > 0
    assert ours["executed_flops"] != plain["executed_flops"]


def test_utilization_is_operations_over_seconds_and_peak(result):
    ours = result["subjects"]["ours"]
    (seconds,) = ours["step_seconds"]
    expected = ours["executed_flops"] / seconds / result["peak_flops"]
    assert ours["executed_flops_utilization"] == pytest.approx(expected)


def test_peer_that_is_not_there_is_named_and_ours_still_measured(result, capsys):
    benchmark.report(result)
    printed = capsys.readouterr().out
    assert "hf: not measured, it needs /nowhere/python" in printed
    assert f"{result['subjects']['ours']['parameters']:,}" in printed


def test_peer_that_fails_in_a_step_does_not_end_the_others(result):
    assert "ended with exit code 1" in result["subjects"]["perceiver_pytorch"]["error"]
    assert len(result["subjects"]["plain"]["step_seconds"]) == 1


def test_result_is_json(result):
    assert json.loads(json.dumps(result)) == result


def test_memory_is_the_peak_of_the_steps(tmp_path, monkeypatch):
    subject = _subject(tmp_path, monkeypatch, {"megabytes": 64})
    if (before := subject.ask("memory")["megabytes"]) is None:
        pytest.skip("this system does not tell")
    subject.ask("allocate")
    after = subject.ask("memory")["megabytes"]
    subject.close()
    assert before < 32 < 60 < after < 128


def test_reason_of_a_subject_reaches_the_parent(tmp_path, monkeypatch):
    (tmp_path / "subject.py").write_text(
        "from experiments import benchmark_protocol\n"
        "def prepare(settings):\n"
        "    raise benchmark_protocol.SubjectError('needs two legs')\n"
        "benchmark_protocol.serve(prepare)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    subject = benchmark_protocol.Subject(sys.executable, "subject", {})
    with pytest.raises(benchmark_protocol.SubjectError, match="needs two legs"):
        subject.receive()
    subject.close()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--peers=hff", "Unknown peer 'hff'; expected some of"),
        ("--batch_size=0", "--batch_size=0; expected at least 1"),
        ("--repeats=-1", "--repeats=-1; expected at least 1"),
        ("--config.train.accumulate_steps=3", "32 examples cannot be accumulated in 3 steps"),
    ],
)
def test_mistakes_get_a_message(flag, message, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main([f"--config={MINI}", flag])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def _subject(tmp_path, monkeypatch, settings):
    source = """
        from experiments import benchmark_protocol

        def prepare(settings):
            def allocate():
                return sum(bytearray(b"x") * (settings["megabytes"] * 2**20)) and None
            return {}, {"allocate": allocate}

        benchmark_protocol.serve(prepare)
    """
    (tmp_path / "subject.py").write_text(textwrap.dedent(source))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    subject = benchmark_protocol.Subject(sys.executable, "subject", settings)
    subject.receive()
    return subject
