"""Configs of earlier versions get the names of this one."""

import json

from experiments import cli, saved_config
from experiments.configs import imagenet


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
    assert cli.flatten(saved_config.from_json(values)) == cli.flatten(today)


def test_a_config_of_today_stays_as_it_is():
    today = imagenet.get_config("mini")
    values = json.loads(today.to_json())
    assert cli.flatten(saved_config.from_json(values)) == cli.flatten(today)
