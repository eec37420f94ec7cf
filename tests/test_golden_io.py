"""Perceiver IO: outputs and gradients equal those of the authors' modules, which ran in float64.

See `test_golden.py`; the models are built from configs here, as people build them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from tests.test_golden import CROSS, GOLDEN, SELF, assert_close, block, translate

BASIC = "basic_decoder"
UNUSED = "unused"


def paths(data, encoder="perceiver_encoder", decoder=f"classification_decoder/~/{BASIC}"):
    """The authors' paths of all of a model, but of its inputs, and ours."""
    theirs = f"{encoder}/~"
    found = block(f"{theirs}/cross_attention", "encoder/cross_attend_0", CROSS)
    found[f"{theirs}/trainable_position_encoding/pos_embs"] = "encoder/latents"
    for i in range(int(data["meta:self_attends_per_block"])):
        ours = f"encoder/latent_transformer_0/self_attend_{i}"
        found |= block(f"{theirs}/self_attention{f'_{i}' if i else ''}", ours, SELF)
    return found | block(f"{decoder}/cross_attention", "decoder/cross_attend", CROSS)


def encoder(data, **keys):
    blocks = int(data["meta:blocks"])
    return {
        "num_latents": int(data["meta:latents"]),
        "latent_channels": int(data["meta:latent_channels"]),
        "layers": ("cross_attend_0", *["latent_transformer_0"] * blocks),
        "num_self_attends": int(data["meta:self_attends_per_block"]),
        "num_cross_attend_heads": int(data["meta:cross_heads"]),
        "num_self_attend_heads": int(data["meta:self_heads"]),
    } | keys


def fourier(bands, resolution):
    resolution = tuple(int(x) for x in np.atleast_1d(resolution))
    return {"kind": "fourier", "num_bands": int(bands), "max_resolution": resolution}


def learned(channels, **keys):
    return {"kind": "learned", "num_channels": int(channels), "init_scale": 0.02} | keys


def image(data, **keys):
    return {"kind": "image", "mean": (0.0,) * 3, "std": (1.0,) * 3} | keys


class Fixture:
    """A file of `golden/` in our names."""

    def __init__(self, name, paths):
        self.data = np.load(GOLDEN / f"{name}.npz")
        self.params, self.grads = {}, {}
        for key, value in self.data.items():
            kind, _, path = key.partition(":")
            if kind in ("param", "grad", "state"):
                path = translate(path, paths(self.data))
                if path.startswith(UNUSED):
                    continue
                target = self.grads if kind == "grad" else self.params
                module, leaf = path.rsplit("/", 1)
                target.setdefault(module, {})[leaf] = (
                    value.reshape(-1) if "norm" in module else value
                )

    def check(self, config, batch, outputs, cotangents):
        """Compares outputs and gradients of a model with the fixture's."""
        model = perceiver_jax.build_model(config)
        with jax.enable_x64():
            params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), self.params)
            made = jax.eval_shape(model.init, jax.random.key(0), batch)
            assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, dict(made))

            @jax.jit
            def run(params):
                out, vjp = jax.vjp(lambda p: model.apply(p, None, batch), params)
                like = {name: cotangents[name].reshape(x.shape) for name, x in out.items()}
                return out, vjp(like)[0]

            out, grads = jax.device_get(run(params))
        for name, expected in outputs.items():
            assert_close(out[name].reshape(expected.shape), expected, name)
        largest = max(np.abs(g).max() for m in self.grads.values() for g in m.values())
        for module, leaves in self.grads.items():
            for name, expected in leaves.items():
                assert_close(grads[module][name], expected, f"{module}/{name}", floor=largest * 0.1)


def classifier(name, inputs, theirs, use_query_residual=True):
    """Checks an image classifier."""
    more = {
        f"classification_decoder/~/{BASIC}/output": "decoder/logits",
        f"classification_decoder/~/{BASIC}/~/trainable_position_encoding/pos_embs": "decoder/query",
    }
    fixture = Fixture(name, lambda data: paths(data) | more | theirs)
    data = fixture.data
    output = {
        "kind": "query",
        "size": int(data["meta:num_classes"]),
        "query_channels": int(data["meta:query_channels"]),
        "use_query_residual": use_query_residual,
    }
    config = {
        "inputs": {"image": inputs(data)},
        "encoder": encoder(data),
        "outputs": {"label": output},
        "dtype": "float64",
    }
    batch = {"image": data["in:images"]}
    fixture.check(config, batch, {"label": data["out"]}, {"label": data["cotangent"]})


def test_a_classifier_of_pixels_with_fourier_features():
    def inputs(data):
        bands, resolution = data["meta:num_bands"], data["meta:max_resolution"]
        return image(data, position_encoding=fourier(bands, resolution))

    classifier("io_classifier_fourier", inputs, {})


def test_a_classifier_of_convolved_pixels_with_learned_positions():
    def inputs(data):
        channels = int(data["meta:position_channels"])
        stem = {"kind": "conv1x1", "num_channels": int(data["meta:num_channels"])}
        return image(data, stem=stem, position_encoding=learned(channels, project_to=channels))

    prefix, ours = "image_preprocessor/~_build_network_inputs", "image_position_encoding"
    theirs = {
        "image_preprocessor/~/conv2_d": "image/stem/conv",
        f"{prefix}/trainable_position_encoding/pos_embs": f"{ours}/position_embedding",
        f"{prefix}/position_encoding_projector/linear": f"{ours}/projection",
    }
    classifier("io_classifier_learned", inputs, theirs, use_query_residual=False)


def test_a_classifier_of_downsampled_pixels_with_batch_norm():
    def inputs(data):
        stem = {"kind": "conv", "num_channels": int(data["meta:num_channels"]), "batch_norm": True}
        bands, resolution = data["meta:num_bands"], data["meta:max_resolution"]
        return image(data, stem=stem, position_encoding=fourier(bands, resolution))

    prefix = "image_preprocessor/~/conv2_d_downsample/~"
    ours = "image/stem/batch_norm"
    theirs = {f"{prefix}/conv": "image/stem/conv", f"{prefix}/batchnorm": ours}
    for average, name in (("mean_ema", "mean"), ("var_ema", "variance")):
        theirs[f"{prefix}/batchnorm/~/{average}/average"] = f"{ours}/{name}"
        theirs[f"{prefix}/batchnorm/~/{average}"] = UNUSED
    classifier("io_classifier_conv", inputs, theirs)


def test_a_masked_language_model():
    more = {
        f"{BASIC}/~/trainable_position_encoding/pos_embs": (
            "decoder_position_encoding/position_embedding"
        ),
        "embed/embeddings": "text/token_embedding",
        "embedding_decoder/bias": "decoder/bias",
        "trainable_position_encoding/pos_embs": "text_position_encoding/position_embedding",
    }
    fixture = Fixture("io_mlm_text", lambda data: paths(data, decoder=BASIC) | more)
    data = fixture.data
    width, vocabulary = int(data["meta:d_model"]), int(data["meta:vocab"])
    channels = int(data["meta:qk_channels"])
    text = {"kind": "text", "vocab_size": vocabulary, "num_channels": width}
    text |= {"max_length": int(data["meta:seq"]), "position_encoding": learned(width)}
    output = {"kind": "text", "size": vocabulary, "position_encoding": learned(width)}
    output |= {"mask_queries": True}
    output |= {"num_heads": int(data["meta:decoder_heads"]), "qk_channels": channels}
    width = {"qk_channels": channels, "v_channels": int(data["meta:latent_channels"])}
    config = {
        "inputs": {"text": text},
        "encoder": encoder(data, **width),
        "outputs": {"text": output | {"v_channels": int(data["meta:d_model"])}},
        "dtype": "float64",
    }
    batch = {"text": data["in:inputs"], "text_mask": data["in:input_mask"].astype(bool)}
    fixture.check(config, batch, {"text": data["out"]}, {"text": data["cotangent"]})


FORMS = pytest.mark.parametrize("chunk_size, streaming", [(0, True), (7, True), (7, False)])


@FORMS
def test_optical_flow(chunk_size, streaming):
    decoder = f"flow_decoder/~/{BASIC}"
    more = {
        f"{decoder}/output": "decoder/output",
        "image_preprocessor/patches_linear": "frames/projection",
    }
    fixture = Fixture("io_flow", lambda data: paths(data, decoder=decoder) | more)
    data = fixture.data
    frames = {"kind": "frames", "mean": (0.0,) * 3, "std": (1.0,) * 3, "patch_size": (3, 3)}
    frames |= {
        "num_channels": int(data["meta:num_channels"]),
        "position_encoding": fourier(data["meta:num_bands"], data["meta:max_resolution"]),
    }
    scale = float(data["meta:flow_scale_factor"] / data["meta:rescale_factor"])
    config = {
        "inputs": {"frames": frames},
        "encoder": encoder(data, streaming=streaming),
        "outputs": {"flow": {"kind": "flow", "scale": scale, "chunk_size": chunk_size}},
        "dtype": "float64",
    }
    batch = {"frames": data["in:images"]}
    fixture.check(config, batch, {"flow": data["out"]}, {"flow": data["cotangent"]})


def multimodal(data, half_open, chunk_size=0):
    """A multimodal autoencoder, and its batch."""
    frames, rows, columns = data["in:images"].shape[1:4]
    patch, samples = int(data["meta:spatial_patch"]), int(data["meta:samples_per_patch"])
    num_classes = int(data["meta:num_classes"])
    number_of_patches = data["in:audio"].shape[1] // samples
    bands, resolution = data["meta:video_bands"], data["meta:video_max_resolution"]
    video = {
        "kind": "video",
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "patch_size": (1, patch, patch),
    }
    video["position_encoding"] = fourier(bands, resolution)
    audio = {"kind": "audio", "patch_size": samples}
    # Up to the Nyquist frequency of samples, not of patches.
    in_time = fourier(data["meta:audio_bands"], data["in:audio"].shape[1])
    audio["position_encoding"] = in_time
    video_queries = fourier(bands, resolution)
    grid = {"kind": "grid", "half_open": half_open}
    outputs = {
        "video": grid
        | {"size": 3, "index_dims": (frames, rows, columns), "position_encoding": video_queries},
        "audio": grid
        | {
            "size": samples,
            "index_dims": (number_of_patches,),
            "position_encoding": in_time,
        },
        "label": {
            "kind": "query",
            "size": num_classes,
            "query_channels": int(data["meta:label_query_channels"]),
        },
    }
    config = {
        "inputs": {
            "video": video,
            "audio": audio,
            "label": {"kind": "label", "num_classes": num_classes},
        },
        "fusion": {
            "modality_channels": int(data["meta:preprocessor_min_padding"]),
            "mask_rates": {"audio": 0.0, "video": 0.0, "label": 0.5},
            "masked_in_evaluation": ("label",),
        },
        "encoder": encoder(data),
        "decoder": {
            "channels": int(data["meta:output_channels"]),
            "query_padding": int(data["meta:decoder_min_padding"]),
            "num_heads": int(data["meta:decoder_heads"]),
            "chunk_size": chunk_size,
        },
        "outputs": outputs,
        "dtype": "float64",
    }
    batch = {
        "video": data["in:images"],
        "audio": data["in:audio"][..., 0],
        "label": data["in:label"],
    }
    return config, batch


def multimodal_fixture():
    prefix, ours = "multimodal_decoder/~decoder_query", "decoder"
    more = {
        f"multimodal_decoder/~/{BASIC}/output": "decoder/output",
        f"classification_decoder/~/{BASIC}/~/trainable_position_encoding/pos_embs": (
            "decoder/label/query"
        ),
        "classification_postprocessor/linear": "decoder/label/output",
        "projection_postprocessor/linear": "decoder/video/output",
        "audio_postprocessor/linear": "decoder/audio/output",
    }
    for theirs, name in (("audio", "audio"), ("image", "video"), ("label", "label")):
        more |= {
            f"{prefix}/{theirs}_padding/pos_embs": f"{ours}/{name}/query_padding",
            f"multimodal_preprocessor/{theirs}_padding/pos_embs": f"inputs/{name}_embedding",
            f"multimodal_preprocessor/{theirs}_mask_token/pos_embs": f"inputs/{name}_mask_token",
        }
    decoder = f"multimodal_decoder/~/{BASIC}"
    fixture = Fixture("io_multimodal", lambda data: paths(data, "encoder", decoder) | more)
    for leaves in [*fixture.params.values(), *fixture.grads.values()]:
        for name in leaves:
            if name.endswith(("_embedding", "_mask_token", "query_padding")):
                leaves[name] = leaves[name][0]
    return fixture


def test_a_multimodal_autoencoder_of_chosen_points():
    fixture = multimodal_fixture()
    data = fixture.data
    config, batch = multimodal(data, half_open=True)
    batch["video_indices"] = data["in:points_image"]
    batch["audio_indices"] = np.tile(data["in:points_audio"], (2, 1))
    names = {"audio": "audio", "video": "image", "label": "label"}
    fixture.check(
        config,
        batch,
        {ours: data[f"out:{theirs}"] for ours, theirs in names.items()},
        {ours: data[f"cotangent:{theirs}"] for ours, theirs in names.items()},
    )


@FORMS
def test_a_multimodal_autoencoder_of_all_points(chunk_size, streaming):
    fixture = multimodal_fixture()
    data = fixture.data
    config, batch = multimodal(data, half_open=False, chunk_size=chunk_size)
    config["encoder"]["streaming"] = streaming
    model = perceiver_jax.build_model(config)
    with jax.enable_x64():
        out = jax.jit(model.apply)(fixture.params, None, batch)
    for ours, theirs in {"audio": "audio", "video": "image", "label": "label"}.items():
        expected = data[f"out_all_points:{theirs}"]
        assert_close(np.reshape(out[ours], expected.shape), expected, ours)
