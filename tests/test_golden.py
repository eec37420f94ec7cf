"""Outputs and gradients equal those of the authors' modules, which ran in float64.

`golden/*.npz` hold inputs, parameters, outputs and gradients of small models computed with the
modules that the Perceiver authors released (google-deepmind/deepmind-research, f5de0ede).
"""

import pathlib

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import attention, position_encoding
from perceiver_jax import encoder as encoder_lib
from perceiver_jax import layers as layers_lib
from perceiver_jax.outputs import mean_pool, query

GOLDEN = pathlib.Path(__file__).parent / "golden"
CROSS = {"layer_norm": "query_norm", "layer_norm_1": "input_norm", "layer_norm_2": "mlp_norm"}
SELF = {"layer_norm": "norm", "layer_norm_1": "mlp_norm"}
BLOCK = {
    "attention/linear": "query",
    "attention/linear_1": "key",
    "attention/linear_2": "value",
    "attention/linear_3": "output",
    "mlp/linear": "mlp_hidden",
    "mlp/linear_1": "mlp_output",
}
# Plain and streaming forms; 8 inputs a chunk: the last one of 35 inputs overlaps the one before.
FORMS = {
    "plain": dict(streaming=False, scan=False),
    "streaming": dict(streaming=True, chunk_size=8),
    "remat": dict(streaming=True, chunk_size=8, remat=True),
}


def block(theirs, ours, names):
    return {f"{theirs}/{a}": f"{ours}/{b}" for a, b in (BLOCK | names).items()}


def encoder(prefix="perceiver_encoder/~/", num_self_attends=2):
    paths = block(f"{prefix}cross_attention", "encoder/cross_attend_0", CROSS)
    paths[f"{prefix}trainable_position_encoding/pos_embs"] = "encoder/latents"
    for i in range(num_self_attends):
        suffix = f"_{i}" if i else ""
        paths |= block(
            f"{prefix}self_attention{suffix}", f"encoder/latent_transformer_0/self_attend_{i}", SELF
        )
    return paths


def iterative(num_self_attends):
    paths = {"~/latents": "encoder/latents", "logits": "decoder/logits"}
    for theirs, ours in (
        ("cross_attend_first", 0),
        ("cross_attend_rest", 1),
        ("cross_attend_0", 0),
        ("cross_attend_1", 1),
    ):
        paths |= block(theirs, f"encoder/cross_attend_{ours}", CROSS)
    for i in range(num_self_attends):
        paths |= block(f"self_attend_{i}", f"encoder/latent_transformer_0/self_attend_{i}", SELF)
        for j in range(2):
            paths |= block(
                f"block_{j}_self_attend_{i}",
                f"encoder/latent_transformer_{j}/self_attend_{i}",
                SELF,
            )
    return paths


class Fixture:
    """A file of `golden/` in our names."""

    def __init__(self, name, paths):
        self.data = np.load(GOLDEN / f"{name}.npz")
        self.params, self.grads = ({}, {})
        for key, value in self.data.items():
            kind, _, path = key.partition(":")
            if kind in ("param", "grad"):
                path = translate(path, paths)
                target = self.params if kind == "param" else self.grads
                module, leaf = path.rsplit("/", 1)
                target.setdefault(module, {})[leaf] = value

    def check(self, function, *inputs):
        """Compares the outputs and all gradients of `function(*inputs)` with the fixture's."""
        forward = hk.without_apply_rng(hk.transform(function))
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), self.params)
        made = jax.eval_shape(forward.init, jax.random.key(0), *inputs)
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, dict(made))

        @jax.jit
        def run(params):
            out, vjp = jax.vjp(lambda p: forward.apply(p, *inputs), params)
            return out, vjp(jnp.asarray(self.data["cotangent"], jnp.float32))[0]

        out, grads = run(params)
        assert_close(out, self.data["out"], "out")
        scale = max(np.abs(g).max() for m in self.grads.values() for g in m.values())
        for module, leaves in self.grads.items():
            for name, expected in leaves.items():
                assert_close(grads[module][name], expected, f"{module}/{name}", floor=scale * 0.1)


def translate(path, paths):
    for theirs in sorted(paths, key=len, reverse=True):
        if path == theirs or path.startswith(theirs + "/"):
            return paths[theirs] + path[len(theirs) :]
    raise KeyError(path)


def assert_close(got, expected, what, floor=0.0):
    error = np.abs(np.asarray(got) - expected).max() / max(np.abs(expected).max(), floor)
    assert error < 1e-5, f"{what}: relative error {error:.1e}"


def cross_attention(streaming, chunk_size=8, **keys):
    def run(latents, inputs, mask=None):
        block = attention.CrossAttention(name="cross_attention", **keys)
        params = block.parameters(latents.shape[-1], inputs.shape[-1])
        return attention.cross_attend(
            params,
            latents,
            inputs,
            mask,
            num_heads=block.num_heads,
            use_query_residual=block.use_query_residual,
            streaming=streaming,
            chunk_size=chunk_size,
        )

    return run


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "name, keys",
    [
        ("cross_attention_1_head", {}),
        ("cross_attention_1_head_masked", {}),
        ("cross_attention_4_heads_q_shape", dict(num_heads=4, qk_channels=24, widening_factor=2)),
        (
            "cross_attention_no_query_residual",
            dict(num_heads=2, qk_channels=8, v_channels=20, use_query_residual=False),
        ),
    ],
)
def test_cross_attention_equals_the_authors(name, keys, streaming):
    fixture = Fixture(name, block("cross_attention", "cross_attention", CROSS))
    inputs = [jnp.asarray(fixture.data[f"in:{n}"], jnp.float32) for n in ("latents", "inputs")]
    masks = [jnp.asarray(fixture.data[n], bool) for n in fixture.data if "mask" in n]
    fixture.check(cross_attention(streaming, **keys), *inputs, *masks)


def test_self_attention_equals_the_authors():
    fixture = Fixture("self_attention", block("self_attention", "self_attention", SELF))

    def run(latents):
        return attention.SelfAttention(4, widening_factor=4, name="self_attention")(latents)

    (name,) = [n for n in fixture.data if n.startswith("in:")]
    fixture.check(run, jnp.asarray(fixture.data[name], jnp.float32))


def make_encoder(layers, num_self_attends, form):
    return encoder_lib.PerceiverEncoder(
        11, 24, layers, num_self_attends, num_self_attend_heads=4, name="encoder", **FORMS[form]
    )


@pytest.mark.parametrize("form", FORMS)
def test_encoder_equals_the_authors(form):
    fixture = Fixture("encoder_io", encoder())
    layers = layers_lib.make_layers(1, 3)
    (name,) = [n for n in fixture.data if n.startswith("in:")]
    fixture.check(
        lambda x: make_encoder(layers, 2, form)(x), jnp.asarray(fixture.data[name], jnp.float32)
    )


@pytest.mark.parametrize("decoder", ["mean_pool", "query"])
def test_classifier_equals_the_authors(decoder):
    paths = encoder() | {"projection_decoder/~/logits": "decoder/logits"}
    prefix = "classification_decoder/~/basic_decoder"
    paths |= block(f"{prefix}/cross_attention", "decoder/cross_attend", CROSS)
    paths |= {
        f"{prefix}/output": "decoder/logits",
        f"{prefix}/~/trainable_position_encoding/pos_embs": "decoder/query",
    }
    fixture = Fixture(f"classifier_{decoder}", paths)

    def run(images):
        positions = position_encoding.FourierEncoding(3)((5, 7))
        pixels = images.reshape(2, 35, 3)
        inputs = jnp.concatenate(
            [pixels, jnp.broadcast_to(positions[None], (2, *positions.shape))], axis=-1
        )
        latents = make_encoder(layers_lib.make_layers(1, 3), 2, "streaming")(inputs)
        if decoder == "mean_pool":
            return mean_pool.MeanPoolDecoder(13, name="decoder")(latents)
        return query.QueryDecoder(13, 24, name="decoder")(latents)

    fixture.check(run, jnp.asarray(fixture.data["in:images"], jnp.float32))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name, layers, num_self_attends",
    [
        ("iterative_shared", layers_lib.make_layers(4, 4), 2),
        ("iterative_unshared", layers_lib.make_layers(2, 2, sharing="none"), 3),
    ],
)
def test_iterative_perceiver_equals_the_authors_blocks(name, layers, num_self_attends, form):
    fixture = Fixture(name, iterative(num_self_attends))

    def run(inputs):
        latents = make_encoder(layers, num_self_attends, form)(inputs)
        return mean_pool.MeanPoolDecoder(13, name="decoder")(latents)

    fixture.check(run, jnp.asarray(fixture.data["in:inputs"], jnp.float32))


@pytest.mark.parametrize("case", [f"case{i}" for i in range(5)])
def test_fourier_features_of_grids_equal_the_authors(case):
    data = np.load(GOLDEN / "fourier_features.npz")
    get = lambda name: data[f"{case}:{name}"]  # noqa: E731
    positions = position_encoding.linear_positions(get("index_dims").tolist())
    np.testing.assert_allclose(positions, get("positions"), atol=1e-6)
    features = position_encoding.fourier_features(
        positions,
        int(get("num_bands")),
        get("max_resolution").tolist(),
        concat_positions=bool(get("concat_pos")),
        sine_only=bool(get("sine_only")),
    )
    np.testing.assert_allclose(features, get("out"), atol=2e-5)


def test_fourier_features_of_points_equal_the_authors():
    data = np.load(GOLDEN / "fourier_features.npz")
    features = position_encoding.fourier_features(
        jnp.asarray(data["points:positions"], jnp.float32),
        int(data["points:num_bands"]),
        data["points:max_resolution"].tolist(),
    )
    np.testing.assert_allclose(features, data["points:out"], atol=2e-5)
