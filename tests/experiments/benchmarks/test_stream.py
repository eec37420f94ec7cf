"""`python -m experiments.benchmarks.stream`."""

import json

import pytest

from experiments.benchmarks import stream
from tests.data import media

SMALL = [
    "--config.model.encoder.num_latents=3",
    "--config.model.encoder.latent_channels=16",
    "--config.model.encoder.num_self_attends=1",
]


def test_a_stream_is_one_compilation_and_its_memory_is_told(tmp_path):
    path = tmp_path / "stream.json"
    stream.main([*SMALL, "--parts=101", f"--json={path}"])
    result = json.loads(path.read_text())
    assert result["parts"] == 101 and result["compilations"] == 1
    assert 50 < result["megabytes_after_100_parts"] < 5_000
    assert "times_real_time" not in result


def test_a_film_is_timed_by_its_length(tmp_path):
    path, film = tmp_path / "stream.json", media.write_clip(tmp_path / "film.mp4", 2.0)
    stream.main([*SMALL, f"--film={film}", f"--json={path}"])
    result = json.loads(path.read_text())
    assert result["parts"] == 3 and result["times_real_time"] > 0


def test_a_model_without_a_step_is_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        stream.main(["--config=experiments/configs/audioset.py:mini"])
    assert exit_.value.code == 2
    assert "The encoder has no step" in capsys.readouterr().err
