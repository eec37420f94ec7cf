"""The command that draws attention maps: of examples of the test split, and of files."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from experiments import attention_maps
import perceiver_jax
from perceiver_jax import data, runs, tasks
from perceiver_jax.pretrained import write

pytestmark = pytest.mark.xdist_group("attention_maps")
RECIPE = pathlib.Path(__file__).parents[2] / "experiments/configs/imagenet.py:mini"
SMALL = {
    "model.encoder.layers": ("cross_attend_0", "latent_transformer_0", "cross_attend_1"),
    "model.encoder.num_latents": 5,
    "model.encoder.latent_channels": 16,
    "model.encoder.num_self_attends": 1,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of weights of a small model of digits, which was not trained."""
    config = perceiver_jax.load_config(str(RECIPE), SMALL)
    built = data.build_data(**config.data)
    made = perceiver_jax.build_model(config.model)
    shapes = jax.eval_shape(made.init, jax.random.key(0), built.zero_batch())
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.array(rng.normal(0, 0.1, x.shape), jnp.float32), shapes)
    names = {"label": built.class_names("label")}
    task = tasks.build_task(config.task, built.fields)
    folder = tmp_path_factory.mktemp("model") / "digits"
    run = runs.Run(folder, 0, config, made, params, task, built.fields, names, ())
    write.write_own(run, folder)
    return folder


def command(model, output, *words):
    """Runs it; returns the exit code."""
    with pytest.raises(SystemExit) as ended:
        attention_maps.main([f"--workdir={model}", f"--output={output}", *words])
    return ended.value.code


def pixels(path):
    with PIL.Image.open(path) as image:
        return np.asarray(image)


def test_examples_of_the_test_split_are_drawn_evenly_spaced(model, tmp_path, capsys):
    assert command(model, tmp_path / "maps", "--num_examples=2", "--num_latents=2", "--grids") == 0
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    stems = ["test_0_3", "test_999_7"]
    assert names == sorted(f"{x}{end}" for x in stems for end in (".npz", ".png", "_grids"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].endswith("test_999_7.png: digits, step 0: test example 999, 7")
    assert pixels(tmp_path / "maps/test_0_3.png").shape[1] > 500
    run = perceiver_jax.load_pretrained(model)
    with np.load(tmp_path / "maps/test_0_3.npz") as arrays:
        latents = arrays["2/image/latents"]
        maps = run.model.attention_maps(run.params, {"image": arrays["inputs/image"][None]}, [2])
        for kind in ("scores", "weights"):
            expected = maps[0]["image"][kind][0][:, latents]
            np.testing.assert_allclose(arrays[f"2/image/{kind}"], expected, atol=1e-5)
        assert arrays["0/layer"] == "cross_attend_0" and arrays["0/heads"].tolist() == ["mean"]
        name = f"2_image_scores_latent_{latents[0]}_head_mean.png"
        grey = pixels(tmp_path / "maps/test_0_3_grids" / name)
        assert grey.shape == (28, 28) and (grey.min(), grey.max()) == (0, 255)
        assert grey.argmax() == arrays["2/image/scores"][0, 0].argmax()


def test_files_are_drawn_as_they_are_read_and_what_can_not_be_read_is_said(model, tmp_path, capsys):
    digit = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    PIL.Image.fromarray(digit).save(tmp_path / "a digit.png")
    (tmp_path / "no.png").write_bytes(b"nothing")
    words = [str(tmp_path / "*.png"), "--latents=4,0", "--layers=cross_attend_1,1", "--draw=both"]
    assert command(model, tmp_path / "maps", *words) == 1
    printed = capsys.readouterr()
    assert "no.png" in printed.err and printed.err.startswith("Error: ")
    assert sorted(x.name for x in (tmp_path / "maps").iterdir()) == [
        "00_a_digit.npz",
        "00_a_digit.png",
    ]
    run = perceiver_jax.load_pretrained(model)
    batch = run.prepare(str(tmp_path / "a digit.png"))
    maps = run.model.attention_maps(run.params, batch, [1, 2])
    with np.load(tmp_path / "maps/00_a_digit.npz") as arrays:
        assert "0/layer" not in arrays
        np.testing.assert_array_equal(arrays["inputs/image"], batch["image"][0])
        np.testing.assert_allclose(
            arrays["2/image/weights"], maps[1]["image"]["weights"][0][:, [4, 0]], atol=1e-5
        )
        expected = np.mean(maps[0]["self_attend_0"]["scores"][0], axis=0, keepdims=True)
        np.testing.assert_allclose(arrays["1/self_attend_0/scores"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_examples=0"], "--num_examples is 0"),
        (["--num_examples=2", "a.png"], "Leave the other out"),
        (["--layers=7"], "layer"),
        (["--latents=7"], "expected different numbers from 0 to 4"),
        (["--latents=best"], "--latents is 'best'; expected different, most, all, or numbers"),
        (["--heads=-1"], "--heads is '-1'; expected mean, all, or numbers such as 3,7"),
        (["--up=x"], "--up"),
        (["--up=z"], "Got --up without FILES"),
        (["--up=z", "a.png"], "Got --up for a model that reads ['image']"),
        (["--num_latents=2", "--latents=1"], "Got --num_latents with --latents=1"),
        (["--layers=self", "--latents=1"], "Got --latents with --layers=self"),
        (["--layers=1", "--num_latents=2"], "Got --num_latents with --layers=1"),
        (["--layers=latent_transformer_0", "--draw=raw"], "Got --draw with --layers=latent_t"),
    ],
)
def test_what_does_not_fit_is_one_line(model, tmp_path, capsys, words, message):
    assert command(model, tmp_path / "maps", *words) == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed and "\n" not in printed
    assert not list(tmp_path.glob("maps/*"))


def test_what_is_there_is_replaced_only_if_asked(model, tmp_path, capsys):
    before = tmp_path / "maps/test_0_3.png"
    before.parent.mkdir()
    before.touch()
    words = ["--num_examples=1", "--layers=0", "--latents=0"]
    assert command(model, tmp_path / "maps", *words) == 2
    assert "there already; expected a new --output. Choose another, or add --overwrite" in (
        capsys.readouterr().err
    )
    assert not before.stat().st_size
    words += ["--overwrite", "--grids", "--kind=scores"]
    assert command(model, tmp_path / "maps", *words) == 0
    assert before.stat().st_size
    (grid,) = (tmp_path / "maps/test_0_3_grids").iterdir()
    assert grid.name == "0_image_scores_latent_0_head_mean.png"


def test_a_model_without_a_data_set_needs_files(model, tmp_path, capsys):
    copy = tmp_path / "model"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    config = json.loads((copy / "config.json").read_text())
    config["data"]["dataset"] = ""
    (copy / "config.json").write_text(json.dumps(config))
    assert command(copy, tmp_path / "maps") == 2
    assert "expected FILES" in capsys.readouterr().err
