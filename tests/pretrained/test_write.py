import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments import convert
from experiments.benchmarks import port as port_lib
import perceiver_jax
from perceiver_jax import config, tasks
from perceiver_jax.data.fields import array, image, number
from perceiver_jax.pretrained import configs, load, write
from perceiver_jax.pretrained import convert as convert_lib
from tests import random_runs

LAYERS = ("cross_attend_0", "latent_transformer_0")


@pytest.mark.parametrize("name", configs.RELEASED)
def test_what_is_released_is_written_as_it_was(name):
    port = configs.RELEASED[name]
    positions = 224 * 224 if name == "vision-perceiver-learned" else None
    back = convert_lib.to_port(configs.released(name), positions)
    expected = configs.DEFAULTS | port
    assert {key: back.get(key, expected[key]) for key in port.keys() - {"d_model"}} == {
        key: port[key] for key in port.keys() - {"d_model"}
    }


@pytest.mark.parametrize("kind", port_lib.SMALL)
def test_tensors_come_back_as_they_were(kind, fixture, tmp_path):
    small = fixture(kind)
    run = perceiver_jax.load_pretrained(small.write(tmp_path / "there"))
    write.write_port(run, tmp_path / "back")
    back = safetensors.numpy.load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == small.tensors.keys()
    for key, x in small.tensors.items():
        np.testing.assert_array_equal(back[key], x)
    again = json.loads((tmp_path / "back" / "config.json").read_text())
    assert configs.from_port(again)["outputs"] == configs.from_port(small.config)["outputs"] or (
        small.config.get("cross_attention_shape_for_attention") == "q"
    )


@pytest.mark.parametrize("shape", ["kv", "q"])
@pytest.mark.parametrize("kind", port_lib.SMALL)
def test_channels_come_back_as_the_port_chose_them(kind, shape, fixture):
    port = fixture(kind).config | {"cross_attention_shape_for_attention": shape}
    section = configs.from_port(port)
    again = convert_lib.to_port(section, 121 if kind == "learned" else None)
    assert configs.from_port(again)["encoder"] == section["encoder"]
    for name, keys in configs.from_port(again)["outputs"].items():
        before = section["outputs"][name].get("qk_channels")
        assert (keys.get("qk_channels") or 24) == (before or 24)
    if kind == "multimodal":
        assert configs.from_port(again)["decoder"] == section["decoder"]


def test_flows_are_scaled_as_those_of_the_released_model(fixture, tmp_path):
    small = fixture("flow")
    run = perceiver_jax.load_pretrained(small.write(tmp_path / "there"))
    run.config.model.outputs.flow.scale = 1.0
    write.write_port(run, tmp_path / "back")
    back = safetensors.numpy.load_file(tmp_path / "back" / "model.safetensors")
    last = "perceiver.decoder.decoder.final_layer.weight"
    np.testing.assert_allclose(back[last], 5 * small.tensors[last], rtol=1e-6)


def test_a_run_of_ones_own_says_its_classes_and_how_pictures_are_prepared(own_run, tmp_path):
    write.write_port(own_run(), tmp_path / "model")
    said = json.loads((tmp_path / "model" / "config.json").read_text())
    assert said["hidden_act"] == "gelu_pytorch_tanh"
    assert said["id2label"] == {"0": "cat", "1": "dog", "2": "newt"}
    assert (said["num_blocks"], said["num_self_attends_per_block"]) == (1, 4)
    assert said["problem_type"] == "single_label_classification"
    processor = json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 13, "width": 13}
    assert processor["image_mean"] == [0.5, 0.5, 0.5]


def test_texts_without_cls_and_sep_are_read_back_so_and_said(fixture, tmp_path):
    run = perceiver_jax.load_pretrained(fixture("text_classes").write(tmp_path / "there"))
    assert write.write_port(run, tmp_path / "with") == []
    field = dataclasses.replace(run.fields["text"], cls_sep=False)
    bare = dataclasses.replace(run, fields={**run.fields, "text": field})
    (note,) = write.write_port(bare, tmp_path / "without")
    assert "tokenizer(text, add_special_tokens=False)" in note
    for name, expected in (("with", run), ("without", bare)):
        again = perceiver_jax.load_pretrained(tmp_path / name)
        assert again.fields["text"] == expected.fields["text"]
        assert again.predict("a text")[0]["label"] == expected.predict("a text")[0]["label"]
    (tmp_path / "with" / "tokenizer_config.json").write_text('{"cls_sep": 1}')
    with pytest.raises(config.UserError, match="has cls_sep 1; expected true or false"):
        perceiver_jax.load_pretrained(tmp_path / "with")


def test_numbers_of_a_regression_are_written_in_their_own_units(own_run, tmp_path):
    run = own_run()
    fields = {"picture": run.fields["picture"], "species": number.Number(3)}
    settings = {"kind": "regression", "target": "species", "mean": (1.0, 2.0, 3.0), "std": 7.0}
    run.config.task = settings
    task = tasks.build_task(settings, fields)
    run = dataclasses.replace(run, task=task, fields=fields, class_names={})
    write.write_port(run, tmp_path / "model")
    again = perceiver_jax.load_pretrained(tmp_path / "model")
    picture = np.random.default_rng(0).integers(0, 256, (13, 13, 3), np.uint8)
    (got,), (expected,) = again.predict(picture), run.predict(picture)
    np.testing.assert_allclose(got["label"], expected["species"], rtol=1e-4)


def with_picture(run, field):
    return dataclasses.replace(run, fields=run.fields | {"picture": field})


@pytest.mark.parametrize(("crop", "differs"), [("inception", True), ("centre", False)])
def test_a_cut_that_the_port_makes_elsewhere_is_told(crop, differs, own_run, tmp_path):
    run = with_picture(own_run(), image.Image(13, crop=crop))
    notes = write.write_port(run, tmp_path / "model")
    assert ["a pixel further to the left and up" in note for note in notes] == [True] * differs


def test_pictures_of_arrays_are_prepared_as_they_are(own_run, tmp_path):
    run = with_picture(own_run(), array.Array("picture", (9, 14, 3), np.dtype(np.uint8)))
    assert write.write_port(run, tmp_path / "model") == []
    processor = json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 9, "width": 14}
    assert processor["do_center_crop"] is False


def test_what_is_no_picture_yet_has_no_processor_and_it_is_told(own_run, tmp_path):
    run = with_picture(own_run(), array.Array("picture", (9, 14, 3), np.dtype(np.float32)))
    (note,) = write.write_port(run, tmp_path / "model")
    assert not (tmp_path / "model" / "preprocessor_config.json").exists()
    assert "how 'picture' is prepared is not written" in note


def test_classes_of_one_name_are_told_apart(own_run):
    names = ("cat", "cat", "cat (1)")
    said = write._classes(dataclasses.replace(own_run(), class_names={"species": names}))
    assert said["id2label"] == {"0": "cat", "1": "cat", "2": "cat (1)"}
    assert said["label2id"] == {"cat": 0, "cat (1)": 1, "cat (1) (2)": 2}


def test_one_class_has_no_kind_of_problem_for_the_port_refuses_it(own_run):
    run = dataclasses.replace(own_run(), class_names={"species": ("newt",)})
    assert "problem_type" not in write._classes(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder.layers": (*LAYERS, "cross_attend_1")}, "has 2 cross-attends, reading all, all"),
        ({"encoder.layers": (*LAYERS, "latent_transformer_1", LAYERS[1])}, "repeats one block"),
        ({"encoder.reads": ("picture",)}, "has 1 cross-attends, reading picture"),
        ({"outputs.species": {"kind": "mean_pool", "size": 3}}, "outputs of mean_pool"),
        ({"outputs.species.num_heads": 2}, r"outputs\.label\.num_heads is 2, there 1 alone"),
        ({"outputs.species.use_query_residual": False}, "use_query_residual is False"),
        ({"outputs.species.query_channels": 20}, "query_channels is 20, there 24 alone"),
        ({"inputs.picture.permutation_seed": 0}, "permutation_seed is 0, there -1 alone"),
        ({"inputs.picture.position_encoding.num_bands": 8}, "num_bands is 8, there 64 alone"),
        (
            {"inputs.picture.position_encoding.max_resolution": (13, 13)},
            r"max_resolution is \(13, 13\), there \(224, 224\) alone",
        ),
        (
            {"inputs.picture.stem": {"kind": "conv", "num_channels": 64}},
            "stem.padding is 'same', there 'port' alone",
        ),
        (
            {"inputs.picture.stem": {"kind": "patches", "patch_size": (4, 4)}},
            "stem.kind is 'patches'",
        ),
        ({"inputs.picture.mean": (0.5,), "inputs.picture.std": (1.0,)}, "there '3 numbers' alone"),
        ({"encoder.qk_channels": 12}, "encoder.v_channels is 12, there 24 alone"),
    ],
)
def test_what_the_port_can_not_compute_is_refused_with_the_reason(changes, message, own_run):
    model = own_run().config.model
    with model.ignore_type(), model.unlocked():
        for key, value in changes.items():
            *sections, name = key.split(".")
            part = model
            for section in sections:
                part = part[section]
            part[name] = value
    with pytest.raises(config.UserError, match=message) as caught:
        convert_lib.to_port(model)
    assert "--format=safetensors" in str(caught.value)


def test_own_weights_are_read_back(own_run, tmp_path):
    run = own_run()
    write.write_own(run, tmp_path / "model")
    again = perceiver_jax.load_pretrained(tmp_path / "model")
    assert again.config.model == run.config.model
    assert again.class_names == run.class_names
    assert again.fields == run.fields
    jax.tree.map(np.testing.assert_array_equal, again.params, run.params)


def test_the_command_writes_into_a_new_folder_alone(fixture, tmp_path, capsys):
    source = fixture("conv").write(tmp_path / "there")
    flags = [f"--source={source}", f"--output={tmp_path / 'back'}"]
    convert.main(flags)
    assert f"wrote {tmp_path / 'back'}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        convert.main(flags)
    assert ended.value.code == 2
    assert "is there already; expected a new --output. Choose another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "lacking", "message"),
    [
        (3, "", ""),
        (3, "data.json", "There is no .*data.json, which says how inputs are read"),
        ("many", "", "export.json: step is 'many'; expected a whole number"),
    ],
)
def test_an_exported_folder_of_which_a_part_is_lacking_is_refused(step, lacking, message, tmp_path):
    write.write_own(random_runs.classifier(), tmp_path)
    (tmp_path / "export.json").write_text(json.dumps({"step": step}))
    (tmp_path / (lacking or "none")).unlink(missing_ok=True)
    if not message:
        assert load.load_pretrained(tmp_path).step == step
        return
    with pytest.raises(config.UserError, match=message):
        load.load_pretrained(tmp_path)
