"""The import rules: model, data, tasks and training never see each other; the roof sees all."""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "perceiver_jax"
NEVER = {"clu", "flax", "tensorflow", "torch"}
# Over the parts: they see all of them, and none of them sees these.
ROOF = {
    "attention_looks",
    "attention_pictures",
    "attention_sheets",
    "classical",
    "config_file",
    "consistency",
    "exporting",
    "prediction_arrays",
    "prediction_files",
    "prediction_shards",
    "predictions",
    "pretrained",
    "runs",
    "serving",
    "summary",
    "transfer",
    "workdir",
}


def _part(module: str) -> str | None:
    """The part of the package that a module belongs to; None: all may import it."""
    words = module.split(".")
    if words[0] != "perceiver_jax" or words[1:2] == ["config"]:
        return None
    if len(words) > 1 and words[1] in ("data", "tasks", "training"):
        return words[1]
    return "roof" if words[1:2] and words[1] in ROOF else "model"


def _imports(path: pathlib.Path) -> set[str]:
    """Full names of the modules that a file imports anywhere in its body."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} uses a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _packages(path: pathlib.Path) -> set[str]:
    return {name.partition(".")[0] for name in _imports(path)}


def _module(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_parts_of_the_package_do_not_import_each_other():
    for path in SOURCES:
        if _part(_module(path)) == "roof" or path == PACKAGE / "__init__.py":  # Which is lazy.
            continue
        # `import perceiver_jax` is the model alone, and so stays quick.
        allowed = {_part(_module(path)), None}
        assert {_part(name) for name in _imports(path)} <= allowed, path


def test_the_package_imports_no_other_framework_and_no_experiment():
    for path in SOURCES:
        assert not _packages(path) & (NEVER | {"experiments", "tests"}), path


def test_data_is_numpy_only():
    for path in (PACKAGE / "data").rglob("*.py"):
        assert not _packages(path) & {"haiku", "jax", "optax"}, path


def test_inputs_do_not_import_their_siblings():
    parent = "perceiver_jax.inputs."
    for path in (PACKAGE / "inputs").glob("[!_]*.py"):
        imported = {name.removeprefix(parent) for name in _imports(path) if name.startswith(parent)}
        assert not imported, path


def test_importing_the_package_loads_neither_tensorflow_nor_the_data_pipeline():
    code = "import sys, perceiver_jax; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & (NEVER | {"grain", "tensorflow_datasets", "orbax"})


def test_training_starts_without_what_only_some_of_it_needs():
    code = (
        "import sys, experiments.train, perceiver_jax.data.pipeline, perceiver_jax.runs; "
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    slow = {"librosa", "matplotlib.pyplot", "scipy.signal", "scipy.stats", "sklearn", "tensorflow"}
    assert not set(done.stdout.split()) & slow


def test_a_folder_that_is_called_as_the_package_does_not_hide_it(tmp_path):
    (tmp_path / "perceiver_jax").mkdir()  # As of a clone, beside which Python is started.
    code = "import importlib.util; print(importlib.util.find_spec('perceiver_jax').origin)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip().endswith("perceiver_jax/__init__.py")


def test_no_file_outgrows_one_idea():
    for path in [*SOURCES, *(ROOT / "experiments").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 450, path
