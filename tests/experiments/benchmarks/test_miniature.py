"""The paper's tables in miniature: rows, runs that are not made twice, and intervals."""

import json
import re

import jax
import numpy as np
import pytest
from scipy import stats

from experiments.benchmarks import miniature, miniature_rows
import perceiver_jax

ROWS = miniature_rows.all_rows()
VALUES, OTHERS = [97.1, 96.4, 97.9], [95.0, 96.1, 95.2]


def test_intervals_are_those_of_scipy():
    mean, half = miniature.mean_interval(VALUES)
    low, high = stats.t.interval(0.95, 2, np.mean(VALUES), stats.sem(VALUES))
    np.testing.assert_allclose([mean - half, mean + half], [low, high])
    difference, half = miniature.difference_interval(VALUES, OTHERS)
    welch = stats.ttest_ind(VALUES, OTHERS, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose([difference - half, difference + half], [welch.low, welch.high])


def test_a_single_seed_has_no_interval_and_equal_ones_one_of_zero():
    assert miniature.mean_interval([97.0]) == (97.0, None)
    assert miniature.difference_interval([97.0], OTHERS)[1] is None
    assert miniature.difference_interval([97.0, 97.0], [96.0, 96.0]) == (1.0, 0.0)


def test_rows_of_one_folder_are_one_model_and_others_differ():
    models = {}
    for row in ROWS:
        models.setdefault(row.folder, []).append(row.make().to_json())
    assert all(len(set(made)) == 1 for made in models.values())
    assert len({made[0] for made in models.values()}) == len(models)
    known = {"", *models}
    assert {row.against for row in ROWS} | {row.tuned for row in ROWS} <= known


@pytest.mark.parametrize(("table", "shape"), [("pixels", (1, 14, 14, 1)), ("points", (1, 256, 3))])
def test_models_of_a_table_have_about_as_many_parameters(table, shape):
    counts = []
    for row in ROWS:
        if row.table == table and not row.folder.endswith(("plain", "learned", "permuted")):
            config = row.make()
            (name,) = config.model.inputs
            dtype = np.uint8 if table == "pixels" else np.float32
            model = perceiver_jax.build_model(config.model)
            batch = {name: np.zeros(shape, dtype)}
            shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
            counts.append(perceiver_jax.param_count(shapes))
    assert len(counts) >= 4 and 56_000 <= min(counts) and max(counts) <= 67_000, counts


def test_finished_runs_are_not_run_again_and_the_table_says_what_is_missing(tmp_path, monkeypatch):
    trained = []

    def train(config, workdir, **options):
        trained.append((workdir.relative_to(tmp_path).as_posix(), config.optimizer.learning_rate))
        workdir.mkdir(parents=True)
        rate, seed = config.optimizer.learning_rate, config.seed
        top1 = 0.9 + 0.01 * seed - abs(rate - 4.5e-3) - 0.2 * ("resnet" in str(workdir))
        (workdir / "config.json").write_text(json.dumps(config.to_dict()))
        line = {"step": config.train.steps, "split": "test", "top1": top1}
        (workdir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        return line

    monkeypatch.setattr(perceiver_jax, "train", train)
    kept = ("pixels/perceiver", "pixels/perceiver_permuted", "pixels/resnet", "pixels/vit")
    rows = [row for row in ROWS if row.table == "pixels" and row.folder in kept]
    miniature.train(rows[:3], ["pixels"], [0, 1], tmp_path)
    runs = [name for name, _ in trained if not name.startswith("validation")]
    assert runs == [f"{row.folder}/seed_{seed}" for seed in (0, 1) for row in rows[:3]]
    assert {rate for name, rate in trained if name in runs} == {4.5e-3}  # The best of three.
    assert len(trained) - len(runs) == 2 * 3
    miniature.train(rows[:3], ["pixels"], [0, 1], tmp_path)
    assert len(trained) == 2 * 3 + len(runs)
    table = miniature.write(rows, tmp_path)
    assert (tmp_path / "miniature.md").read_text() == table
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()}
    assert "| 0.0045 | 90.0, 91.0 | 90.5 ± 6.4 |  |" in lines["Perceiver, Fourier features"]
    permuted = lines["Perceiver, Fourier features, permuted"]
    assert permuted.endswith("| +0.0 ± 3.0: within the noise |")
    assert lines["ResNet, Fourier features"].endswith("| -20.0 ± 3.0 |")
    assert "not run" in lines["ViT, Fourier features"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only=pixel"], "Unknown table 'pixel'.*Did you mean 'pixels'"),
        (["--seeds=a"], "got 'a'; expected whole numbers"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        miniature.main([f"--workdir={tmp_path}", *words])
    assert error.value.code == 2
    assert re.search(message, capsys.readouterr().err)
