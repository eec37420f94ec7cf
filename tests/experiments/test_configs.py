"""Every config, with every argument, builds; those of the paper have the paper's size and cost."""

import dataclasses
import inspect
import itertools

import jax
import pytest

from experiments.configs import (
    audioset,
    flow,
    imagenet,
    imagenet_io,
    masked_text,
    modelnet40,
    multimodal,
    text,
)
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import consistency, flops, recipes, tasks, workdir
from perceiver_jax import data as data_lib
from perceiver_jax.training import devices, loop, optimizers

IMAGENET = [
    "",
    "permuted",
    "learned_positions",
    "learned_positions,permuted",
    "unshared",
    *(f"cross_attends={n}" for n in (1, 2, 4, 8)),
    *(f"cross_attends={n},at_start" for n in (1, 2, 4, 8)),
    *(f"no_latent_transformer={n}" for n in (4, 8, 12)),
]
MODELNET40 = ["", "tuned", "cpu", "augment,cosine", "dropout,ema,smoothing,points=1024,subsets=4"]
AUDIOSET = ["", "audio_raw", "audio_mel", "video", "av_mel", "av_mel_tuned"]
CONFIGS = [
    pytest.param(
        module, ",".join(filter(None, [mini, arg])), id=f"{module.__name__[20:]}:{mini},{arg}"
    )
    for module, args in (
        *((imagenet, IMAGENET), (audioset, AUDIOSET), (modelnet40, MODELNET40)),
        *((imagenet_io, ["", "learned", "conv"]), (multimodal, ["", "latents=196"])),
        *((module, [""]) for module in (flow, masked_text, text)),
    )
    for arg, mini in itertools.product(args, ["", "mini"])
    if (arg, mini) not in (("cpu", "mini"), ("latents=196", "mini"))
]


def build(config):
    """Data, model, and the shapes of an example and of the parameters."""
    data = data_lib.build_data(**config.data)
    model = perceiver_jax.build_model(config.model)
    example = dataclasses.replace(data, batch_size=1).zero_batch()
    return data, model, example, jax.eval_shape(model.init, jax.random.key(0), example)


@pytest.mark.parametrize(("module", "arg"), CONFIGS)
def test_every_config_builds(module, arg):
    config = module.get_config(arg)
    data, model, example, params = build(config)
    task = tasks.build_task(config.task, data.fields)
    consistency.check(config, data, task, num_devices=1)
    outputs = jax.eval_shape(lambda p, b: model.apply(p, None, b), params, example)
    wanted = {name: x.shape for name, x in example.items() if name in task.outputs}
    losses = jax.eval_shape(lambda x, b: task.loss(x, b)[0], outputs, example)
    assert (losses.shape, set(outputs)) == ((1,), set(wanted))

    devices.build_sharding(loop.TrainConfig(**config.train).parallelism)
    optimizers.build_optimizer(**config.optimizer, total_steps=config.train.steps)


@pytest.mark.parametrize(("module", "arg"), CONFIGS)
def test_a_run_goes_on_with_the_recipe_it_began_with(tmp_path, module, arg):
    given = module.get_config(arg)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "config.json").write_text(given.to_json())
    assert workdir.check_unchanged(given, tmp_path) == []
    given.optimizer.learning_rate *= 2
    with pytest.raises(config_lib.UserError, match="optimizer.learning_rate: "):
        workdir.check_unchanged(given, tmp_path)


@pytest.mark.parametrize("mini", ["", "mini"])
def test_all_configs_have_the_same_keys(mini):
    def keys(config):
        return {
            key
            for section in ("data", "optimizer", "train", "eval")
            for key in (f"{section}.{name}" for name in config[section])
        } | {f"encoder.{name}" for name in config.model.encoder}

    first, *others = (keys(module.get_config(mini)) for module in (imagenet, audioset, modelnet40))
    assert all(other == first for other in others)


# Tables 5, 6 and 7: parameters, exactly as computed from the paper's text, and its GFLOPs.
PAPER = {
    "no_latent_transformer=4": (12_654_868, 173.1),
    "no_latent_transformer=8": (23_760_448, 346.1),
    "no_latent_transformer=12": (34_866_028, 519.2),
    "cross_attends=1": (42_135_859, 404.3),
    "cross_attends=2": (44_912_254, 447.6),
    "cross_attends=4": (44_912_254, 534.1),
    "cross_attends=8": (44_912_254, 707.2),
    "cross_attends=1,at_start": (42_135_859, 404.3),
    "cross_attends=2,at_start": (44_912_254, 447.6),
    "cross_attends=4,at_start": (44_912_254, 534.1),
    "cross_attends=8,at_start": (44_912_254, 707.2),
    "unshared": (326_241_856, 707.2),
}


@pytest.mark.parametrize("arg", PAPER)
def test_the_tables_of_the_paper_have_their_parameters_and_flops(arg):
    config = imagenet.get_config(arg)
    config.model.encoder.streaming = False  # The paper counts keys and values as projected.
    _, model, example, params = build(config)
    count = flops.count_flops(lambda p, b: model.apply(p, None, b), params, example)
    parameters, giga_flops = PAPER[arg]
    assert perceiver_jax.param_count(params) == parameters
    assert count == pytest.approx(giga_flops * 1e9, rel=0.005)


@pytest.mark.parametrize(
    ("module", "arg", "parameters"),
    [
        (imagenet, "learned_positions", 48_189_577),
        (imagenet, "permuted", 44_912_254),
        (modelnet40, "", 44_772_202),
        (audioset, "", 28_787_139),
    ],
)
def test_other_models_have_the_parameters_that_follow_from_the_text(module, arg, parameters):
    assert perceiver_jax.param_count(build(module.get_config(arg))[-1]) == parameters


@pytest.mark.parametrize(("arg", "number"), [("", 13_024), ("av_mel", 17_344)])
def test_audioset_has_the_number_of_inputs_of_the_paper(arg, number):
    _, model, example, params = build(audioset.get_config(arg))
    tokens = jax.eval_shape(lambda p, b: model.tokens(p, None, b), params, example)
    assert tokens.values.shape == (1, number, 487)


def test_imagenet_decays_its_learning_rate_at_epochs_84_102_and_114():
    config = imagenet.get_config()
    optimizer = optimizers.build_optimizer(**config.optimizer, total_steps=config.train.steps)
    epochs = [83, 85, 101, 103, 113, 115]
    rates = [float(optimizer.learning_rate(round(e / 120 * config.train.steps))) for e in epochs]
    assert rates == pytest.approx([4e-3, 4e-4, 4e-4, 4e-5, 4e-5, 4e-6], rel=1e-4)


def differences(a, b, path=""):
    """Paths of the keys whose values differ, by section."""
    if not isinstance(a, dict):
        return {path} if a != b else set()
    return {p for key in a for p in differences(a[key], b.get(key), f"{path}.{key}")}


@pytest.mark.parametrize("name", modelnet40.CHANGES)
def test_a_change_to_modelnet40_is_made_to_the_mini_as_well(name):
    config = modelnet40.get_config(f"mini,{name}")
    again = config.copy_and_resolve_references()
    again.update(modelnet40.changes(config.train.steps)[name])
    assert differences(config.to_dict(), again.to_dict()) == set()


def test_tuned_modelnet40_makes_every_change_and_no_other():
    before, tuned = (modelnet40.get_config(arg).to_dict() for arg in ("", "tuned"))
    each = [
        differences(before, modelnet40.get_config(name).to_dict()) for name in modelnet40.CHANGES
    ]
    assert all(each)
    assert differences(before, tuned) == set().union(*each)


def test_cpu_modelnet40_trains_as_the_tuned_one():
    cpu, tuned = (modelnet40.get_config(arg) for arg in ("cpu", "tuned"))
    points = cpu.data.fields.points.to_dict() | {"num_points": 2048}
    assert points == tuned.data.fields.points.to_dict()
    for section, key in (("task", "label_smoothing"), ("train", "ema_decay")):
        assert cpu[section][key] == tuned[section][key] > 0
    assert cpu.optimizer.schedule == tuned.optimizer.schedule


def test_tuned_audioset_drops_the_spectrogram_and_does_not_mask_it():
    config = audioset.get_config("av_mel_tuned")
    assert config.model.fusion.dropout_rates.to_dict() == {"audio": 0.1, "video": 0.3}
    assert config.data.fields.audio.time_masks == 0
    assert audioset.get_config("av_mel").data.fields.audio.time_masks > 0


def test_both_sections_of_an_input_follow_from_the_same_numbers():
    sound, sound_input = recipes.audio(0.5, 8_000, num_bands=3)
    frames, frames_input = recipes.video(1.5, 8.0, 40, num_bands=3)
    assert sound["num_samples"] == 4_000
    assert sound_input["position_encoding"]["max_resolution"] == (31,)  # Patches of 128.
    assert frames["num_frames"] == 12
    assert frames_input["position_encoding"]["max_resolution"] == (6, 5, 5)


@pytest.mark.parametrize("module", [imagenet, audioset, modelnet40])
def test_a_recipe_says_only_what_differs(module):
    assert len(inspect.getsource(module).splitlines()) < 110


@pytest.mark.parametrize(
    ("module", "arg", "message"),
    [
        (imagenet, "no_latent_transformer=4,at_start", "contradict"),
        (audioset, "video,audio_raw", "contradict"),
        (modelnet40, "min", "Did you mean 'mini'"),
        (modelnet40, "cpu,mini", "contradict"),
        (modelnet40, "tuned,ema", "contradict"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(module, arg, message):
    with pytest.raises(config_lib.UserError, match=message):
        module.get_config(arg)
