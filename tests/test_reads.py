"""What cross-attends read: inputs one after the other, and parts of a stream."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import attention, config, flops
from perceiver_jax import layers as layers_lib

FOURIER = {"kind": "fourier", "num_bands": 3}
VIDEO = {
    "kind": "video",
    "mean": (0.5,) * 3,
    "std": (0.2,) * 3,
    "patch_size": (1, 2, 2),
    "position_encoding": FOURIER,
}
INPUTS = {
    "audio": {"kind": "audio", "patch_size": 5, "position_encoding": FOURIER},
    "video": VIDEO,
}
STEP = ("cross_attend_0", "latent_transformer_0")
PARTS = tuple(f"all[{part}]" for part in range(3))
SEQUENTIAL = ("audio", "video", "audio", "video")

pytestmark = pytest.mark.xdist_group("reads")  # One process compiles what the tests share.


def build(layers, reads, fusion=True, inputs=INPUTS, **encoder):
    fusion = {"modality_channels": 2, "dropout_rates": {}} if fusion is True else fusion
    keys = {
        "num_latents": 5,
        "latent_channels": 12,
        "layers": layers,
        "reads": reads,
        "num_self_attends": 1,
        "num_self_attend_heads": 3,
    }
    return perceiver_jax.build_model(
        {
            "inputs": inputs,
            "encoder": keys | encoder,
            "outputs": {"label": {"kind": "mean_pool", "size": 7}},
        }
        | ({"fusion": fusion} if fusion else {})
    )


def make_batch(size=2, parts=3, seed=0):
    """Each part has 2 frames and 35 samples."""
    rng = np.random.default_rng(seed)
    return {
        "audio": rng.normal(size=(size, 35 * parts)).astype(np.float32),
        "video": rng.integers(0, 256, (size, 2 * parts, 4, 6, 3), np.uint8),
    }


def part_of(batch, part):
    return {
        "audio": batch["audio"][:, 35 * part : 35 * (part + 1)],
        "video": batch["video"][:, 2 * part : 2 * (part + 1)],
    }


def make_params(model, batch):
    """Parameters away from their start, where the head is zero."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.array(rng.normal(0, 0.3, x.shape), jnp.float32), shapes)


@functools.cache
def unrolled(scan=True):
    return build(STEP * 3, PARTS, scan=scan)


@functools.cache
def sequential(scan=True):
    layers = ("cross_attend_0", "latent_transformer_0", "cross_attend_1", "latent_transformer_1")
    return build(layers * 2, SEQUENTIAL, fusion=None, scan=scan)


@functools.cache
def params_of(make):
    return make_params(make(), make_batch())


def run(model, params, batch):
    return jax.jit(lambda p, b: model.apply(p, None, b)["label"])(params, batch)


def squared_logits(model, batch, params):
    return jnp.sum(model.apply(params, None, batch)["label"] ** 2)


# ------------------------------------------------------------------ names


def test_a_cross_attend_reads_a_part_only_of_parts_counted_from_zero():
    with pytest.raises(
        config.UserError, match=r"reads has the parts \[0, 2\]; expected each from 0"
    ):
        layers_lib.resolve(STEP * 2, ("all[0]", "all[2]"))


@pytest.mark.parametrize(
    "reads, message",
    [
        (("audio",), "reads has 1 names for 2 cross-attends; expected one for each"),
        (("audio", "video"), "lets 'cross_attend_0' read 'audio' and 'video'; expected the same"),
        (("all[x]", "all"), r"reads names 'all\[x\]'; expected 'all', the name of an input, or a"),
        (("audio", "audio"), "has neither 'video' nor 'all'; expected each of config.model.inputs"),
        (("all[01]", "all"), r"reads names 'all\[01\]'"),
        (("vdeo", "vdeo"), "Unknown input in config.model.encoder.reads 'vdeo'.*mean 'video'"),
    ],
)
def test_reads_that_fit_neither_layers_nor_inputs_are_an_error(reads, message):
    with pytest.raises(config.UserError, match=message):
        build(STEP * 2, reads)


def test_channels_of_a_fusion_that_nothing_reads_are_an_error():
    layers = ("cross_attend_0", "cross_attend_1")
    with pytest.raises(
        config.UserError, match="fusion.modality_channels is 2, but no cross-attend"
    ):
        build(layers, ("audio", "video"))


def test_inputs_that_do_not_divide_into_the_parts_are_an_error():
    batch = make_batch() | {"audio": np.zeros((2, 100), np.float32)}
    message = r"Input 'audio' has shape \(2, 100\); expected a multiple of 3 along the axis after"
    with pytest.raises(config.UserError, match=message):
        unrolled().apply(params_of(unrolled), None, batch)


# ------------------------------------------------------------------ numbers


def block(params, path):
    """The parameters of a block of the encoder."""
    prefix = f"encoder/{path}/"
    return {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}


def by_hand(model, params, batch, num_latent_blocks=1):
    """The sequential model, layer by layer, of the blocks that it is made of."""
    latents = jnp.broadcast_to(params["encoder"]["latents"][None], (2, 5, 12))
    for index, name in enumerate(SEQUENTIAL):
        inputs = model.tokens(params, None, batch, reads=name).values
        latents = attention.cross_attend(
            block(params, f"cross_attend_{index % 2}"), latents, inputs, streaming=False
        )
        for i in range(num_latent_blocks):
            latents = attention.self_attend(
                block(params, f"latent_transformer_{index % 2}/self_attend_{i}"),
                latents,
                num_heads=3,
            )
    return latents


def test_inputs_read_one_after_the_other_give_what_the_blocks_give():
    batch, params = make_batch(), params_of(sequential)
    got = jax.jit(sequential().latents)(params, batch)
    np.testing.assert_allclose(got, by_hand(sequential(), params, batch), atol=1e-5)
    assert np.std(got) > 0.1


def test_an_input_that_is_read_alone_has_its_own_channels():
    batch, params = make_batch(), params_of(sequential)
    tokens = {n: sequential().tokens(params, None, batch, reads=n).values.shape for n in INPUTS}
    assert tokens == {"audio": (2, 21, 5 + 7), "video": (2, 36, 12 + 21)}


@pytest.mark.parametrize("make", [unrolled, sequential])
def test_scanned_layers_equal_unrolled_ones_with_gradients_and_dropout(make):
    batch, params = make_batch(), params_of(make)
    results = []
    for scan in (True, False):
        model = make(scan)

        loss = functools.partial(squared_logits, model, batch)
        results.append(jax.jit(jax.value_and_grad(loss))(params))
    assert results[0][0] > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), *results)


def test_dropout_of_parts_is_that_of_unrolled_layers():
    batch = make_batch()
    keys = jax.random.split(jax.random.key(1), 2)
    outs = []
    for scan in (True, False):
        model = build(STEP * 3, PARTS, scan=scan, dropout_rate=0.3)
        fn = jax.jit(lambda p, k, b, m=model: m.apply(p, k, b, is_training=True)["label"])
        outs.append([fn(params_of(unrolled), k, batch) for k in (keys, keys[::-1])])
    np.testing.assert_allclose(outs[0][0], outs[1][0], atol=1e-5)
    assert np.abs(outs[0][0] - outs[0][1]).max() > 0.05


def test_a_dropped_modality_is_dropped_from_all_parts():
    fusion = {"modality_channels": 2, "dropout_rates": {"video": 0.5}}
    model = build(STEP * 3, PARTS, fusion=fusion)
    batch, params = make_batch(size=16), params_of(unrolled)
    values = [
        model.tokens(params, jax.random.key(0), batch, is_training=True, reads=reads).values
        for reads in PARTS
    ]
    dropped = [np.asarray(jnp.all(x[:, 7:, :33] == 0, axis=(1, 2))) for x in values]
    assert 0 < dropped[0].sum() < 16
    assert (dropped[0] == dropped[1]).all() and (dropped[0] == dropped[2]).all()


@pytest.mark.parametrize("make", [unrolled, sequential])
def test_latents_pass_unchanged_where_there_is_nothing_to_read(make):
    model, params, batch = make(), params_of(make), make_batch()
    masks = {"audio_mask": np.array([True, False]), "video_mask": np.array([True, True])}
    maps = jax.jit(lambda b: model.latents(params, b))
    changed = dict(batch, audio=np.stack([batch["audio"][0], np.full(105, np.nan, np.float32)]))
    got = maps(batch | masks)
    np.testing.assert_array_equal(got, maps(changed | masks))
    whole = maps(batch)
    np.testing.assert_allclose(got[0], whole[0], atol=1e-5)
    assert jnp.abs(got[1] - whole[1]).max() > 0.01
    if make is sequential:  # The same as a model that never reads the audio.
        layers = ("cross_attend_1", "latent_transformer_1")
        alone = build(
            ("latent_transformer_0", *layers) * 2, (), fusion=None, inputs={"video": VIDEO}
        )
        expected = alone.latents(params, {"video": batch["video"]})
        np.testing.assert_allclose(got[1], expected[1], atol=1e-5)


def test_a_part_without_anything_leaves_the_latents_to_the_other_parts():
    mask = np.ones((2, 21), bool)
    mask[:, 14:] = False  # Nothing of part 2.
    frames = np.repeat(mask[:, ::7], 12, axis=1)
    batch = make_batch() | {"audio_mask": mask, "video_mask": frames}
    got = jax.jit(lambda b: unrolled().latents(params_of(unrolled), b))(batch)
    two = build((*STEP * 2, "latent_transformer_0"), PARTS[:2])
    shorter = {"audio": batch["audio"][:, :70], "video": batch["video"][:, :4]}
    expected = jax.jit(lambda b: two.latents(params_of(unrolled), b))(shorter)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_what_an_unrolled_model_compiles_does_not_grow_with_the_parts():
    def count(parts):
        model = build(STEP * parts, [f"all[{t}]" for t in range(parts)])
        batch = make_batch(parts=parts)
        lowered = jax.jit(lambda p, b: model.apply(p, None, b)).lower(params_of(unrolled), batch)
        return lowered.as_text().count("dot_general")

    assert count(3) == count(11) < 60


def test_an_input_that_is_read_whole_need_not_divide_into_the_parts_of_another():
    layers = ("cross_attend_0", *("cross_attend_1",) * 3)
    model = build(layers, ("audio", *(f"video[{t}]" for t in range(3))), fusion=None)
    batch = make_batch() | {"audio": np.ones((2, 40), np.float32)}  # 8 patches.
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    assert jax.eval_shape(model.latents, shapes, batch).shape == (2, 5, 12)


# ------------------------------------------------------------------ streams


def test_steps_over_the_parts_give_what_apply_gives_on_the_whole():
    model, params, batch = unrolled(), params_of(unrolled), make_batch()
    batch["audio_mask"] = np.random.default_rng(1).random((2, 21)) < 0.7
    latents = model.initial_latents(params, 2)
    step = jax.jit(model.step)
    for t in range(3):
        part = part_of(batch, t) | {"audio_mask": batch["audio_mask"][:, 7 * t : 7 * (t + 1)]}
        latents = step(params, latents, part)
    got = jax.jit(model.decode)(params, latents)["label"]
    expected = run(model, params, batch)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_stream_of_many_parts_compiles_once():
    model, params = unrolled(), params_of(unrolled)
    traces = []

    @jax.jit
    def step(*args):
        traces.append(args)
        return model.step(*args)

    latents, part = model.initial_latents(params, 1), part_of(make_batch(size=1), 0)
    for _ in range(100):
        latents = step(params, latents, part)
    assert len(traces) == 1
    assert np.isfinite(latents).all()


def test_a_model_that_is_not_unrolled_has_no_step():
    model, params = sequential(), params_of(sequential)
    with pytest.raises(
        config.UserError, match="The encoder has no step: its layers are not the same"
    ):
        model.step(params, model.initial_latents(params, 2), make_batch())


def test_latents_of_another_size_are_an_error():
    model, params = unrolled(), params_of(unrolled)
    message = r"latents have shape \(1, 5, 12\); expected floats of shape \(2, 5, 12\)"
    with pytest.raises(config.UserError, match=message):
        model.step(params, model.initial_latents(params, 1), part_of(make_batch(), 0))
    with pytest.raises(config.UserError, match="The latents are list; expected floats of shape"):
        model.decode(params, [1.0])


@pytest.mark.parametrize("make", [unrolled, sequential])
def test_counted_flops_are_those_that_xla_counts(make):
    batch, params = make_batch(), params_of(make)
    model = make(False)  # XLA counts the body of a loop once.
    counted = flops.count_flops(lambda p, b: make().apply(p, None, b), params, batch)
    compiled = jax.jit(lambda p, b: model.apply(p, None, b)).lower(params, batch).compile()
    by_xla = compiled.cost_analysis()["flops"]
    assert counted < by_xla < 1.35 * counted  # Norms and softmax are no small part of this model.
