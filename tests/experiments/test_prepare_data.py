"""From a user's files to a data set on disk, and to the command that trains on it."""

import logging
import os
import pathlib
import subprocess
import sys

import pytest
import requests
import tensorflow_datasets as tfds

from experiments import prepare_data
from perceiver_jax.data import datasets


def test_an_unknown_kind_lists_the_known(capsys):
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(["imagefolder"])
    assert exit_.value.code == 2
    assert "'tfds'" in capsys.readouterr().err


def test_a_set_that_tfds_does_not_have_is_explained(capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(["tfds", "--name=no_such_set", f"--data_dir={tmp_path}"])
    assert exit_.value.code == 2
    assert "TFDS has no data set 'no_such_set'" in capsys.readouterr().err


def test_without_a_network_a_set_of_tfds_is_refused_in_a_line(monkeypatch, tmp_path, capsys):
    def unreachable(self, **keys):
        for _ in range(3):
            logging.getLogger("urllib3.connectionpool").warning("Retrying (Retry(total=9))")
        raise requests.exceptions.ConnectionError("HTTPSConnectionPool: Max retries exceeded.")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", unreachable)
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(["tfds", "--name=mnist", f"--data_dir={tmp_path}"])
    assert exit_.value.code == 2
    first, last = capsys.readouterr().err.splitlines()[-2:]
    assert first == "no answer from the network; trying again for some minutes ..."
    assert "mnist can't be downloaded: HTTPSConnectionPool: Max retries exceeded. Try" in last


def test_an_interrupted_build_ends_with_what_to_do(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "build", interrupted)
    with pytest.raises(SystemExit, match="give the same command again"):
        prepare_data.main(["tfds", "--name=mnist"])


def test_without_pyav_the_kinds_of_clips_name_the_extra(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['av'] = None")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.prepare_data", "sound_folder", "--source=sounds"],
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("install it with: pip install perceiver-haiku[av]\n")
