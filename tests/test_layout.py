"""The import rules of the package: model, data and training never see each other."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "perceiver_jax"
NEVER = {"clu", "flax", "tensorflow", "torch"}


def _part(module: str) -> str | None:
    """The part of the package that a module belongs to: data, training or model."""
    words = module.split(".")
    if words[0] != "perceiver_jax":
        return None
    if len(words) > 1 and words[1] in ("data", "training"):
        return words[1]
    return "model"


def _imports(path: pathlib.Path) -> set[str]:
    """Full names of the modules that a file imports anywhere in its body."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _module(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=_module)
def test_parts_of_the_package_do_not_import_each_other(path):
    if path.name == "__init__.py" and path.parent == PACKAGE:
        allowed = {"model"}  # `import perceiver_jax` is the model alone, and so stays quick.
    else:
        allowed = {_part(_module(path))}
    assert {_part(name) for name in _imports(path)} - {None} <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=_module)
def test_the_package_imports_no_other_framework(path):
    assert not {name.split(".")[0] for name in _imports(path)} & NEVER


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").rglob("*.py")), ids=_module)
def test_data_is_numpy_only(path):
    assert not {name.split(".")[0] for name in _imports(path)} & {"haiku", "jax", "optax"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "preprocessors").glob("*.py")), ids=_module)
def test_preprocessors_do_not_import_their_siblings(path):
    siblings = {p.stem for p in path.parent.glob("*.py")} - {"__init__", path.stem, "tokens"}
    package = "perceiver_jax.preprocessors."
    imported = {n.split(".")[2] for n in _imports(path) if n.startswith(package)}
    assert path.name == "__init__.py" or not imported & siblings


def test_importing_the_package_loads_neither_tensorflow_nor_the_data_pipeline():
    code = "import sys, perceiver_jax; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & (NEVER | {"grain", "tensorflow_datasets", "orbax"})


@pytest.mark.parametrize("path", sorted(ROOT.glob("[pe]*/**/*.py")), ids=_module)
def test_no_file_outgrows_one_idea(path):
    assert len(path.read_text().splitlines()) <= 400
