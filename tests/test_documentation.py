"""The example of docs/new_modality.md is run as it is written there."""

import json
import pathlib
import re
import runpy
import sys
import types

import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "new_modality.md"
FILE = re.compile(r"^`(\S+\.py)`:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^```python\n    \"(\w+)\": (\w+)\.(\w+),\n```", re.MULTILINE)
# Fewer steps, and weights that compile sooner, than the page has.
QUICK = (
    "--config.train.steps=60",
    "--config.train.log_every=60",
    "--config.train.eval_every=60",
    "--config.train.checkpoint_every=60",
    "--config.model.encoder.layers=('cross_attend_0','latent_transformer_0')",
)
pytestmark = pytest.mark.xdist_group("documentation")


@pytest.fixture(scope="module")
def files():
    """The page's files by path."""
    return dict(FILE.findall(PAGE.read_text()))


@pytest.fixture
def with_sensors(files, monkeypatch):
    """The package as it is with the page's two files and two lines."""
    from perceiver_jax import inputs
    from perceiver_jax.data import fields

    tables = {"data/fields": fields.FIELDS, "inputs": inputs.INPUTS}
    lines = LINE.findall(PAGE.read_text())
    assert len(lines) == 2
    for (key, module_name, member), (folder, table) in zip(lines, tables.items(), strict=True):
        name = f"perceiver_jax.{folder.replace('/', '.')}.{module_name}"
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)  # Dataclasses look themselves up.
        source = files[f"perceiver_jax/{folder}/{module_name}.py"]
        exec(compile(source, name, "exec"), module.__dict__)
        monkeypatch.setitem(table, key, getattr(module, member))


def test_the_new_modality_learns(files, with_sensors, tmp_path, monkeypatch):
    pytest.importorskip("sktime", reason="has the data of the example")
    from experiments import train

    for path, source in files.items():
        (tmp_path / pathlib.Path(path).name).write_text(source)
    runpy.run_path(str(tmp_path / "prepare_basic_motions.py"))
    config, workdir = tmp_path / "basic_motions.py", tmp_path / "run"
    train.main([f"--config={config}", f"--workdir={workdir}", *QUICK])
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (top1,) = [line["top1"] for line in lines if line["split"] == "test"]
    assert top1 > 0.6  # A quarter is chance.
