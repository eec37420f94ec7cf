"""Attention to modalities without the channels that fill them up: the same numbers as with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import attention, flops, padded, tokens

B, N, C = 2, 5, 17
SIZES = {"label": (1, 13), "sound": (7, 3), "video": (19, 5)}  # Inputs, and channels of their own.


def parts_of(dtype=jnp.float32, masked=True):
    """Modalities, of which one is missing from an example, and one has a hole."""
    rng = np.random.default_rng(0)
    parts = {}
    for name, (number, own) in SIZES.items():
        values = rng.normal(0.3, 1.0, (B, number, own))
        parts[name] = padded.Part(
            jnp.asarray(values, dtype), jnp.asarray(rng.normal(0.5, 1.0, (B, C - own)), dtype)
        )
    if masked:
        holes = np.ones((B, 19), bool)
        holes[:, 3:5] = False
        parts["video"] = parts["video"]._replace(mask=jnp.array(holes))
        parts["sound"] = parts["sound"]._replace(mask=jnp.array([[True] * 7, [False] * 7]))
    return list(parts.values())


def block_and_latents(dtype=jnp.float32):
    rng = np.random.default_rng(1)

    def norm(channels):
        return {"scale": rng.normal(1, 0.3, channels), "offset": rng.normal(0, 0.3, channels)}

    def linear(into, out):
        return {"w": rng.normal(0, 0.5, (into, out)), "b": rng.normal(0, 0.3, out)}

    params = {
        "query_norm": norm(11),
        "input_norm": norm(C),
        "query": linear(11, 7),
        "key": linear(C, 7),
        "value": linear(C, 3),
        "output": linear(3, 11),
        "mlp_norm": norm(11),
        "mlp_hidden": linear(11, 11),
        "mlp_output": linear(11, 11),
    }
    as_arrays = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    return as_arrays, jnp.asarray(rng.normal(0, 1, (B, N, 11)), dtype)


def by_parts(params, latents, parts, chunk_size=0):
    read, variances = zip(*map(padded.prepare, parts), strict=True)
    scales = tuple(jax.lax.rsqrt(x + attention.NORM_EPSILON) for x in variances)
    mask = padded.fuse(parts).mask
    return attention.cross_attend(params, latents, read, mask, scales, chunk_size=chunk_size)


def filled_up(params, latents, parts):
    fused = padded.fuse(parts)
    return attention.cross_attend(params, latents, fused.values, fused.mask, streaming=False)


def assert_close(got, expected, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, expected
    )


@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_equal_those_of_inputs_that_are_filled_up(masked):
    params, latents = block_and_latents()
    parts = parts_of(masked=masked)
    cotangent = jnp.asarray(np.random.default_rng(2).normal(size=latents.shape), jnp.float32)

    def run(function):
        def of_floats(params, latents, floats):
            given = [
                x._replace(values=f[0], padding=f[1]) for x, f in zip(parts, floats, strict=True)
            ]
            return function(params, latents, given)

        @jax.jit
        def both(*args):
            out, vjp = jax.vjp(of_floats, *args)
            return out, vjp(cotangent)

        return both(params, latents, [(x.values, x.padding) for x in parts])

    got, expected = run(by_parts), run(filled_up)
    assert_close(got, expected, 2e-5)
    assert all(np.abs(x).max() > 0 for _, x in got[1][2])  # Paddings have gradients.


def test_gradients_equal_where_inputs_are_data_and_chunks_are_small():
    params, latents = block_and_latents()
    parts = parts_of()

    def loss(function, **keys):
        def of_paddings(params, paddings):
            given = [x._replace(padding=p) for x, p in zip(parts, paddings, strict=True)]
            return jnp.sum(jnp.sin(function(params, latents, given, **keys)))

        return jax.jit(jax.grad(of_paddings, (0, 1)))(params, [x.padding for x in parts])

    assert_close(loss(by_parts, chunk_size=3), loss(filled_up), 2e-5)


def test_forward_mode_equals_too():
    params, latents = block_and_latents()
    parts = parts_of()
    paddings = [x.padding for x in parts]

    def derivative(function):
        def of_paddings(paddings):
            given = [x._replace(padding=p) for x, p in zip(parts, paddings, strict=True)]
            return function(params, latents, given)

        ones = [jnp.ones_like(x) for x in paddings]
        return jax.jit(lambda x, dx: jax.jvp(of_paddings, (x,), (dx,))[1])(paddings, ones)

    assert_close(derivative(by_parts), derivative(filled_up), 2e-5)


def test_a_row_that_may_attend_to_nothing_gives_zeros():
    parts = [x._replace(mask=jnp.zeros(x.values.shape[:2], bool)) for x in parts_of(masked=False)]
    read = [padded.prepare(x)[0] for x in parts]
    scales = [jnp.ones(x.values.shape[:2]) for x in parts]
    assert not np.any(padded.attend(jnp.ones((B, N, C)), read, scales))


def test_parts_are_kept_only_where_they_are_much_less():
    wide = [padded.Part(jnp.ones((1, 10, 12)), jnp.ones((1, 4))) for _ in range(2)]
    narrow = [x._replace(values=x.values[..., :4], padding=jnp.ones((1, 12))) for x in wide]
    assert isinstance(padded.fuse(wide), tokens.Tokens)
    assert isinstance(padded.fuse(narrow), padded.Fused)


MODEL = dict(
    inputs=dict(
        label=dict(kind="label", num_classes=29),
        image=dict(
            kind="image",
            mean=(0.5,),
            std=(0.5,),
            position_encoding=dict(kind="fourier", num_bands=2, max_resolution=(6, 6)),
        ),
    ),
    fusion=dict(
        modality_channels=2,
        mask_rates=dict(image=0.0, label=0.5),
        masked_in_evaluation=("label",),
    ),
    encoder=dict(
        num_latents=N,
        latent_channels=16,
        layers=("cross_attend_0", "latent_transformer_0") * 2,
        num_self_attends=1,
        num_self_attend_heads=2,
    ),
    outputs=dict(label=dict(kind="mean_pool", size=29)),
)


def random_params(model, batch):
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype), shapes)


def count(function, *args):
    """Products, traced anew: JAX remembers the traces of a function."""
    return flops.count_flops(lambda *args: function(*args), *args)


def test_a_model_of_a_label_and_pixels_is_the_same_by_parts_and_multiplies_less(monkeypatch):
    batch = {
        "label": np.array([3, 28], np.int32),
        "image": np.random.default_rng(0).integers(0, 256, (B, 6, 6, 1), np.uint8),
    }
    plain_encoder = MODEL["encoder"] | dict(streaming=False)
    models = [
        perceiver_jax.build_model(MODEL | dict(encoder=x))
        for x in (MODEL["encoder"], plain_encoder)
    ]
    params = random_params(models[0], batch)

    def gradient(model):
        def loss(params):
            outs = (
                model.apply(params, None, batch),
                model.apply(params, jax.random.key(5), batch, True),
            )
            return sum(jnp.sum(jnp.sin(out["label"])) for out in outs)

        return jax.value_and_grad(loss)

    got, expected = (jax.jit(gradient(model))(params) for model in models)
    assert_close(got, expected, 5e-4)
    few = count(gradient(models[0]), params)
    monkeypatch.setattr(padded, "_WORTH_IT", 0)
    assert few < 0.9 * count(gradient(models[0]), params)


def test_parts_of_time_and_what_an_example_lacks_are_read_by_parts_as_well(monkeypatch):
    """Narrow sound of many inputs and wide pictures of few, two parts one after the other."""
    inputs = dict(
        audio=dict(
            kind="audio",
            patch_size=4,
            position_encoding=dict(kind="fourier", num_bands=2, max_resolution=(32,)),
        ),
        video=dict(
            kind="video",
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            patch_size=(1, 4, 4),
            position_encoding=dict(kind="fourier", num_bands=2, max_resolution=(2, 2, 2)),
        ),
    )
    layers = ("cross_attend_0", "latent_transformer_0") * 2
    encoder = MODEL["encoder"] | dict(layers=layers, reads=("all[0]", "all[1]"))
    rng = np.random.default_rng(0)
    batch = {
        "audio": rng.normal(0, 1, (B, 128)).astype(np.float32),
        "video": rng.integers(0, 256, (B, 2, 8, 8, 3), np.uint8),
        "video_mask": np.array([True, False]),
    }
    model = perceiver_jax.build_model(
        dict(
            inputs=inputs,
            fusion=dict(modality_channels=2),
            encoder=encoder,
            outputs=MODEL["outputs"],
        )
    )
    params = random_params(model, batch)
    got, few = jax.jit(model.apply)(params, None, batch), count(model.apply, params, None, batch)
    monkeypatch.setattr(padded, "_WORTH_IT", 0)
    whole = jax.jit(lambda *args: model.apply(*args))
    assert_close(got, whole(params, None, batch), 5e-4)
    assert few < 0.9 * count(model.apply, params, None, batch)
