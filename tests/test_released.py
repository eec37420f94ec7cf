"""The page of released models, and the command that checks them: both run, on small ones.

Folders in the working directory are called as the released models, so that names are not changed.
"""

import functools
import pathlib
import re
import time

import numpy as np
import PIL.Image
import pytest

from experiments import check_pretrained
from experiments.benchmarks import dense, random_weights
import perceiver_jax
from perceiver_jax.data import imagenet_classes
from perceiver_jax.pretrained import configs
from tests.data import media
from tests.data.photographs import photograph

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "pretrained.md"
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = {
    "num_latents": 5,
    "d_latents": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
}
OWN = {
    "vision-perceiver-fourier": {"image_size": 24, "num_labels": 1000},
    "language-perceiver": {"d_model": 16, "max_position_embeddings": 67, "qk_channels": 16},
    "optical-flow-perceiver": {"train_size": [24, 30]},
    "multimodal-perceiver": {
        "num_frames": 2,
        "image_size": 4,
        "output_shape": [1, 2, 16, 16],
        "num_labels": 7,
    },
}


def port_of(name):
    return configs.RELEASED[name] | {"v_channels": None} | SMALL | OWN[name]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in OWN:
        random_weights.write(port_of(name), folder / name)
    return folder


@pytest.fixture(scope="module")
def load(models):
    """Loads each model once, which then is compiled once."""
    return functools.cache(perceiver_jax.load_pretrained)


@pytest.fixture
def inside(models, load, monkeypatch):
    monkeypatch.chdir(models)
    monkeypatch.setattr(perceiver_jax, "load_pretrained", load)
    return models


def block(name):
    (code,) = (code for code in CODE.findall(PAGE.read_text()) if f'"{name}"' in code)
    return code


def test_every_example_takes_five_lines_beside_its_imports():
    for code in CODE.findall(PAGE.read_text()):
        lines = [line for line in code.splitlines() if line and "import" not in line]
        assert len(lines) <= 4


def test_the_page_names_a_picture(inside, capsys):
    pathlib.Path("cat.jpg").write_bytes(photograph(0))
    names = {}
    exec(block("vision-perceiver-fourier"), names)
    best = names["predicted"]["label"]
    assert len(best) == 5 and {name for name, _ in best} <= set(imagenet_classes.names())
    assert [p for _, p in best] == sorted((p for _, p in best), reverse=True)
    assert capsys.readouterr().out == f"{best}\n"


def test_the_page_fills_a_gap(inside, capsys):
    exec(block("language-perceiver"), {})
    begin = "This is an incomplete sentence where some words are"
    assert capsys.readouterr().out.startswith(begin)


def test_the_page_draws_a_flow(inside):
    for i in range(2):
        pathlib.Path(f"frame_{i + 1}.png").write_bytes(photograph(i, file_format="png"))
    exec(block("optical-flow-perceiver"), {})
    with PIL.Image.open("flow.png") as picture:
        assert picture.size == (75, 50)
        assert len(picture.getcolors(75 * 50)) > 100


def test_the_page_reconstructs_a_clip(inside, capsys):
    media.write_clip(inside / "clip.mp4", seconds=0.5)
    exec(block("multimodal-perceiver"), {})
    assert capsys.readouterr().out.startswith("[(")
    assert pathlib.Path("reconstruction.mp4").stat().st_size > 500


def test_the_command_says_what_is_not_as_published(inside, capsys):
    pathlib.Path("cats.png").write_bytes(photograph(0, file_format="png"))
    with pytest.raises(SystemExit) as ended:
        check_pretrained.main([*OWN, "--cats=cats.png"])
    assert ended.value.code == 1
    told = capsys.readouterr().out
    count = perceiver_jax.param_count(perceiver_jax.load_pretrained("language-perceiver").params)
    assert f"  parameters: {count:,}; expected 201,108,230: NOT as published" in told
    for what in ("first logits", "first logits of the cats", "median flow", "PSNR of video"):
        (line,) = re.findall(rf"^  {what}[^:]*: .*$", told, re.MULTILINE)[:1]
        assert line.endswith(": NOT as published")
    assert told.count("every tensor is used") == len(OWN)


def test_the_command_ends_well_if_all_is_as_published(inside, monkeypatch, capsys):
    name = "vision-perceiver-fourier"
    pathlib.Path("cats.png").write_bytes(photograph(0, file_format="png"))
    run = perceiver_jax.load_pretrained(name)
    logits = np.asarray(run(run.prepare("cats.png"))["label"])[0]
    monkeypatch.setitem(check_pretrained.PARAMETERS, name, perceiver_jax.param_count(run.params))
    monkeypatch.setitem(check_pretrained._CATS, name, logits[:3])
    check_pretrained.main([name, "--cats=cats.png"])
    told = capsys.readouterr().out
    assert told.count(": as published") == 2 and "NOT" not in told


@pytest.mark.parametrize(
    ("constant", "value", "why"),
    [
        ("HF_HUB_OFFLINE", True, "HF_HUB_OFFLINE is set. Unset it, or give the path"),
        (
            "HUGGINGFACE_CO_URL_TEMPLATE",
            "http://127.0.0.1:9/{repo_id}/{revision}/{filename}",  # Where nobody listens.
            "https://huggingface.co is out of reach (Connection refused). Try again",
        ),
    ],
)
def test_without_a_network_the_command_ends_with_one_line_soon(
    tmp_path, monkeypatch, capfd, constant, value, why
):
    monkeypatch.chdir(tmp_path)
    try:
        monkeypatch.setattr(f"huggingface_hub.constants.{constant}", value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        why = f"deepmind/language-perceiver is neither in the cache nor can be downloaded: {why}"
    except ImportError:
        why = "pip install perceiver-haiku[hub]"
    begin = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        check_pretrained.main(["language-perceiver"])
    assert ended.value.code == 2 and time.monotonic() - begin < 10
    (line,) = capfd.readouterr().err.splitlines()
    assert why in line


def test_dense_outputs_are_measured():
    result = dense.measure(port_of("optical-flow-perceiver"), (30, 40), repeats=1)
    assert result["parameters"] > 1e5 and result["peak_megabytes"] > 0
    assert np.isfinite(list(result.values())).all()
