"""An exported folder runs with JAX and NumPy alone, says what it is, and opens as a run."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import export as command
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import exporting

# JAX, what it asks for, and flatbuffers, without which `jax.export` reads nothing.
PACKAGES = ("jax", "jaxlib", "ml_dtypes", "numpy", "opt_einsum", "scipy", "flatbuffers")
pytestmark = pytest.mark.xdist_group("export")
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(run_of, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "clips"
    exporting.export(run_of("audioset.py:mini"), path)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The first lines of a program that sees no packages but these, of this environment."""
    path = tmp_path_factory.mktemp("packages")
    for name in PACKAGES:
        (place,) = importlib.util.find_spec(name).submodule_search_locations
        (path / name).symlink_to(place)
        libraries = pathlib.Path(f"{place}.libs")  # Of wheels.
        if libraries.is_dir():
            (path / libraries.name).symlink_to(libraries)
    return f"import sys; sys.path.append({str(path)!r})\n"


def run_alone(program, folder):
    """Runs a program without the site's packages."""
    line = [sys.executable, "-I", "-S", "-c", program]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True)


def test_the_example_of_the_readme_runs_with_jax_and_numpy_alone(folder, alone):
    (code,) = CODE.findall((folder / "README.md").read_text())
    done = run_alone(alone + code, folder)
    assert not done.returncode, done.stderr
    assert done.stdout == "label (1, 16) as when it was exported\n"


@pytest.mark.parametrize("name", ["perceiver_jax", "haiku", "safetensors"])
def test_other_packages_are_not_there_then(name, folder, alone):
    assert f"No module named {name!r}" in run_alone(f"{alone}import {name}", folder).stderr


def test_what_is_exported_says_what_goes_in_and_out(folder):
    about = json.loads((folder / "export.json").read_text())
    assert about["format"] == 1 and about["step"] == 7
    forms = {name: (x["shape"], x["dtype"]) for name, x in about["inputs"].items()}
    assert forms == {
        "audio": (["batch", 61_440], "float32"),
        "video": (["batch", 16, 48, 48, 3], "uint8"),
    }
    assert about["outputs"]["label"]["shape"] == ["batch", 16]
    assert about["outputs"]["label"]["meaning"] == "the probability of each class by itself"
    assert about["latents"]["shape"] == ["batch", 3, 16]
    assert about["class_names"]["label"][:2] == ["class 0", "class 1"]
    assert all((folder / name).is_file() for name in about["programs"].values())


def test_an_exported_folder_opens_as_the_run_that_it_is_of(folder, run_of):
    run, back = run_of("audioset.py:mini"), perceiver_jax.load_pretrained(folder)
    jax.tree.map(np.testing.assert_array_equal, back.params, run.params)
    assert (back.fields, back.class_names) == (run.fields, run.class_names)
    assert back.step == 7


def test_everybody_may_read_all_files_or_nobody(folder):
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_the_command_exports_an_exported_folder_again(folder, tmp_path, capsys):
    command.main([f"--workdir={folder}", f"--output={tmp_path / 'again'}"])
    assert capsys.readouterr().out == f"wrote {tmp_path / 'again'}\n"
    first, second = (
        json.loads((path / "export.json").read_text()) for path in (folder, tmp_path / "again")
    )
    assert first == second


def test_a_folder_with_files_is_refused_before_anything_is_computed(folder):
    with pytest.raises(config_lib.UserError, match="holds something; expected a new or an empty"):
        exporting.export(None, folder)
