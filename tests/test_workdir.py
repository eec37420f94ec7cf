"""What a run keeps of how it began; configs of earlier versions get the names of this one."""

import json

import numpy as np
import pytest

from experiments.configs import imagenet
from perceiver_jax import config, config_file, workdir


def test_a_config_of_before_the_tasks_equals_today_s():
    today = imagenet.get_config("mini")
    values = json.loads(today.to_json())
    # As commit ca28736 wrote it.
    model, task, fields = values["model"], values.pop("task"), values["data"].pop("fields")
    output = model.pop("outputs")["label"]
    model |= {"num_classes": output.pop("size"), "decoder": output}
    values["train"] |= {name: task[name] for name in ("loss", "label_smoothing")}
    del fields["label"]
    values["data"]["modalities"] = fields
    assert config_file.flatten(workdir.from_json(values)) == config_file.flatten(today)


def test_a_config_of_today_stays_as_it_is():
    today = imagenet.get_config("mini")
    values = json.loads(today.to_json())
    assert config_file.flatten(workdir.from_json(values)) == config_file.flatten(today)


@pytest.mark.parametrize(
    "content",
    ["", "5", "[]", "null", "{}", '{"data": 5}', '{"data": {}, "model": {}, "train": {}}'],
)
def test_what_is_no_config_is_called_damaged(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(config.UserError, match="config.json is damaged: .* write what is under"):
        workdir.read(tmp_path)


def test_a_config_with_lists_and_numbers_of_numpy_is_read_back_as_it_was_made_plain():
    given = {
        "mean": [np.float32(0.5), 2],
        "std": np.ones(3),
        "b": {"steps": np.int64(7), "q": None},
    }
    plain = workdir.plain(given)
    assert plain == {"mean": (0.5, 2), "std": (1.0, 1.0, 1.0), "b": {"steps": 7, "q": None}}
    assert workdir.plain(json.loads(json.dumps(plain))) == plain
