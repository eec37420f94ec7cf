"""`python -m experiments.describe`."""

import contextlib
import io
import json

import pytest

from experiments import describe

CONFIG = "--config=experiments/configs"
pytestmark = pytest.mark.xdist_group("describe")


@pytest.fixture(scope="module")
def described():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        describe.main([f"{CONFIG}/audioset.py", "--json"])
    return json.loads(out.getvalue())


def test_json_has_the_inputs_of_each_modality_and_together(described):
    assert described["inputs"] == {
        "audio": {"number": 480, "channels": 257},
        "video": {"number": 12544, "channels": 483},
    }
    assert described["input"] == {"number": 13024, "channels": 487}


def test_every_key_of_the_config_is_there(described, capsys):
    keys = described["config"]
    assert keys["data.fields.label.kind"] == "label" and keys["eval.num_windows"] == 16
    describe.main([f"{CONFIG}/modelnet40.py:mini"])
    printed = capsys.readouterr().out
    assert "--config.model.inputs.points.position_encoding.max_resolution=(32, 32, 32)\n" in printed
    assert "config.task.label_smoothing" in printed and "config.optimizer.schedule.name" in printed


def test_parameters_of_the_weight_sets_add_up(described):
    rows = described["weights"].values()
    assert sum(row["parameters"] for row in rows) == described["parameters"]


def test_every_layer_names_the_weights_that_it_uses(described):
    used = {i: name for name, row in described["weights"].items() for i in row["layers"]}
    assert [used[i] for i in range(len(used))] == described["layers"]


def test_absorbed_cross_attends_execute_fewer_flops_than_the_paper_counts(described):
    assert described["flops"]["executed"] < described["flops"]["paper"]


def test_activations_in_bfloat16_take_less_memory(capsys):
    describe.main([f"{CONFIG}/modelnet40.py:mini", "--config.model.dtype=bfloat16", "--json"])
    size = json.loads(capsys.readouterr().out)["activation_bytes"]
    assert 0 < size["bfloat16"] < size["float32"]


def test_the_table_shows_each_weight_set(capsys):
    describe.main([f"{CONFIG}/modelnet40.py:mini"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("cross_attend_0", "latent_transformer_0", "latents"))


def test_a_wrong_value_ends_with_code_2(capsys):
    with pytest.raises(SystemExit) as exit_:
        describe.main([f"{CONFIG}/modelnet40.py:mini", "--config.model.dtype=float17"])
    assert exit_.value.code == 2
    assert "float17" in capsys.readouterr().err
