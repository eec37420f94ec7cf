"""Parameters are taken over by path and shape, and what is not is told."""

import types

import jax
import ml_collections
import numpy as np
import PIL.Image
import pytest

from experiments.configs import imagenet
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import config_file, transfer
from perceiver_jax import data as data_lib
from perceiver_jax.pretrained import configs
from tests.experiments import tiny

POSITIONS = "image_position_encoding/position_embedding"


def make_config(arg="mini", **keys):
    """A config of a small model; keys of config.model with '__' for dots."""
    config = imagenet.get_config(arg)
    flags = dict(flag.removeprefix("--config.").split("=") for flag in tiny.MODEL)
    for key, value in flags.items():
        config_file.override(config, key, value)
    for key, value in keys.items():
        *sections, name = key.split("__")
        section = config
        for each in sections:
            section = section[each]
        section[name] = value
    config.init.source = "runs/earlier"
    return config


def shapes_of(config):
    """The shapes of the parameters of a config, and an example."""
    example = data_lib.build_data(**config.data.to_dict() | {"batch_size": 1}).zero_batch()
    model = perceiver_jax.build_model(config.model)
    return jax.eval_shape(model.init, jax.random.key(0), example), example


def make_source(config):
    """What `load_run` would give of such a run."""
    rng, (shapes, _) = np.random.default_rng(0), shapes_of(config)
    return types.SimpleNamespace(
        config=config,
        fields=data_lib.build_data(**config.data).fields,
        params=jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes),
        step=7,
    )


def take_over(source, config):
    shapes, example = shapes_of(config)
    return transfer.transfer(source, shapes, config, example), shapes


@pytest.fixture(scope="module")
def earlier():
    return make_source(make_config())


def test_all_of_an_equal_model_is_taken_over(earlier):
    found, shapes = take_over(earlier, make_config())
    zeros = jax.tree.map(lambda x: np.zeros(x.shape), shapes)
    jax.tree.map(np.testing.assert_array_equal, found.onto(zeros), earlier.params)
    record = found.record
    assert (record["source"], len(record["taken"])) == ("runs/earlier (step 7)", found.count)
    assert not any(record[x] for x in ("interpolated", "anew", "not_found", "not_used", "model"))


def test_the_head_starts_at_random_where_the_classes_are_others(earlier):
    found, shapes = take_over(earlier, make_config(model__outputs__label__size=3))
    head = {"decoder/logits/w", "decoder/logits/b"}
    assert found.record["anew"].keys() == head
    assert found.record["not_used"] == []
    zeros = jax.tree.map(lambda x: np.zeros(x.shape), shapes)
    started = found.onto(zeros)
    assert not started["decoder/logits"]["w"].any()
    np.testing.assert_array_equal(
        started["encoder"]["latents"], earlier.params["encoder"]["latents"]
    )
    assert any(
        "the output has another size there (10): decoder/logits/b" in x for x in found.lines()
    )


def test_what_starts_at_random_is_not_frozen_unless_that_is_asked_for(earlier):
    config = make_config(model__outputs__label__size=3)
    config.optimizer.frozen = ("decoder/*",)
    with pytest.raises(config_lib.UserError, match=r"holds decoder/logits/b, .*never be trained"):
        take_over(earlier, config)
    config.init.exclude = ("decoder/logits/*",)
    assert take_over(earlier, config)[0].record["anew"]["decoder/logits/w"] == "excluded"


def test_an_output_of_another_kind_starts_at_random(earlier):
    outputs = {"label": {"kind": "query", "size": 10, "query_channels": 24}}
    found, _ = take_over(earlier, make_config(model__outputs=outputs))
    assert found.record["anew"]["decoder/logits/w"].startswith("the output is of another kind")
    assert all(x.startswith("decoder/") for x in found.record["not_found"])


def test_what_is_excluded_starts_at_random(earlier):
    config = make_config()
    config.init.exclude = ("decoder/*", "*/latents")
    found, _ = take_over(earlier, config)
    expected = {"decoder/logits/b", "decoder/logits/w", "encoder/latents"}
    assert set(found.record["anew"]) == expected
    assert expected.isdisjoint(found.taken)


def test_what_is_not_used_and_not_found_is_listed(earlier):
    layers = ("cross_attend_7", "latent_transformer_0")
    found, _ = take_over(earlier, make_config(model__encoder__layers=layers))
    assert {x.split("/")[1] for x in found.record["not_found"]} == {"cross_attend_7"}
    assert {x.split("/")[1] for x in found.record["not_used"]} == {"cross_attend_0"}
    assert found.record["model"] == [
        "encoder.layers: ('cross_attend_0', 'latent_transformer_0') -> "
        "('cross_attend_7', 'latent_transformer_0')"
    ]
    text = "\n".join(found.lines())
    assert "not found there: encoder/cross_attend_7/" in text and "and 12 more" in text
    assert "not used of it: encoder/cross_attend_0/" in text


def test_what_has_another_shape_is_refused(earlier):
    with pytest.raises(config_lib.UserError) as error:
        take_over(earlier, make_config(model__encoder__num_latents=7))
    assert "encoder/latents: [5, 24] there, [7, 24] here" in str(error.value)
    assert "config.init.exclude = ('encoder/latents',)" in str(error.value)


def test_a_source_of_which_nothing_is_taken_is_refused(earlier):
    config = make_config()
    config.init.exclude = ("*",)
    with pytest.raises(config_lib.UserError, match="has no parameter that is taken over.* exclude"):
        take_over(earlier, config)


def test_a_pattern_that_excludes_nothing_is_refused(earlier):
    config = make_config()
    config.init.exclude = ("decoders/*",)
    with pytest.raises(config_lib.UserError, match="init.exclude .*'decoders/.*mean 'decoder/"):
        take_over(earlier, config)


def test_to_exclude_without_a_source_is_refused():
    keys = {"source": "", "exclude": ("decoder/*",)}
    with pytest.raises(config_lib.UserError, match="^config.init.exclude is .* without a source"):
        config_lib.build(transfer.Init, keys, "config.init")


def resized(x, grid):
    """Pillow's bicubic, of each channel."""
    pictures = [PIL.Image.fromarray(x[..., i]) for i in range(x.shape[-1])]
    size = grid[::-1]
    return np.stack(
        [np.asarray(p.resize(size, PIL.Image.Resampling.BICUBIC)) for p in pictures], -1
    )


@pytest.mark.parametrize("grid", [(11, 7), (3, 13), (2, 3), (5, 7)])
def test_positions_are_interpolated_as_a_picture_is(grid):
    x = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    got = transfer.interpolate(x.reshape(35, 3), (5, 7), grid)
    np.testing.assert_allclose(got.reshape(*grid, 3), resized(x, grid), atol=2e-6)


def test_positions_are_interpolated_where_the_picture_has_another_size():
    source = make_source(make_config("mini,learned_positions"))
    config = make_config("mini,learned_positions", data__fields__image__image_size=20)
    found, _ = take_over(source, config)
    assert found.record["interpolated"] == {POSITIONS: "28 x 28 positions -> 20 x 20, bicubic"}
    assert POSITIONS not in found.record["taken"]
    module, _, name = POSITIONS.rpartition("/")
    expected = transfer.interpolate(source.params[module][name], (28, 28), (20, 20))
    np.testing.assert_array_equal(found.taken[POSITIONS], expected)
    assert f"  interpolated: {POSITIONS}, 28 x 28 positions -> 20 x 20, bicubic" in found.lines()


def test_positions_of_as_many_channels_only_are_interpolated():
    source = make_source(make_config("mini,learned_positions"))
    config = make_config("mini,learned_positions", data__fields__image__image_size=20)
    config.model.inputs.image.position_encoding.num_channels = 5
    with pytest.raises(config_lib.UserError, match="10 parameters of .* have another shape"):
        take_over(source, config)


SMALL_TEXT = {
    "num_latents": 3,
    "d_latents": 16,
    "d_model": 16,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 2,
    "max_position_embeddings": 31,
}


def text_model(architecture, length):
    """Config and shapes of a released kind of text model, a small one."""
    port = SMALL_TEXT | {"architectures": [architecture], "max_position_embeddings": length}
    keys = {"source": "language-perceiver", "exclude": ()}
    sections = {"model": configs.from_port(port), "init": keys, "optimizer": {"frozen": ()}}
    config = ml_collections.ConfigDict(sections)
    model = perceiver_jax.build_model(config.model)
    example = {"text": np.zeros((1, length), np.int32)}
    return config, jax.eval_shape(model.init, jax.random.key(0), example), example


def test_a_classifier_of_shorter_texts_takes_the_encoder_of_masked_text_and_the_first_positions():
    there, shapes, _ = text_model(configs.MASKED_TEXT, 31)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    source = types.SimpleNamespace(config=there, fields={}, params=params, step=0)
    config, shapes, example = text_model(configs.TEXT_CLASSES, 23)
    found = transfer.transfer(source, shapes, config, example)
    positions = "text_position_encoding/position_embedding"
    assert found.record["interpolated"] == {positions: "the first 23 of 31 positions"}
    module, _, name = positions.rpartition("/")
    np.testing.assert_array_equal(found.taken[positions], params[module][name][:23])
    assert {"encoder/latents", "text/token_embedding"} <= set(found.record["taken"])
    assert not any(path.startswith("decoder") for path in found.taken)
    assert found.record["source"] == "language-perceiver"
    assert "decoder/bias" in found.record["not_used"]
