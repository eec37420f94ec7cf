"""Names of parameters: ours <-> those of Hugging Face's port <-> those of the authors' pickles.

One table a model, made of its config: each of its parameters once. Reading and writing both follow
it, so that nothing is left out or used twice on the way.
"""

from collections.abc import Callable, Iterable, Mapping
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax import layers as layers_lib

_MAX_LISTED = 4  # Names that a message gives.
# What files hold beside parameters: counters of batch norms, and averages before they are corrected
# for their start. The port's attention masks of other versions are no parameters either.
UNUSED = re.compile(r"(.*\.)?batchnorm\.num_batches_tracked|.*_ema/(counter|hidden)")


class Name(NamedTuple):
    """What a parameter is called.

    Attributes:
      ours: module path and name.
      port: of the port's tensor.
      authors: module path and name.
      axes: which axes of the port's tensor are ours, in our order; None: as they are. Axes of size
        1 don't count.
    """

    ours: str
    port: str
    authors: str
    axes: tuple[int, ...] | None = None


_LINEAR = (1, 0)  # The port's are [output, input].
_CONVOLUTION = (2, 3, 1, 0)  # The port's are [output, input, rows, columns].

# Parts of a block, as in `attention`, by what they are there and in the authors' code.
_NORMS = {"norm": "attention.self.layernorm1", "mlp_norm": "layernorm"}
_NORMS_OF_CROSS_ATTEND = {
    "query_norm": "attention.self.layernorm1",
    "input_norm": "attention.self.layernorm2",
    "mlp_norm": "layernorm",
}
_LINEARS = {
    "query": ("attention.self.query", "attention/linear"),
    "key": ("attention.self.key", "attention/linear_1"),
    "value": ("attention.self.value", "attention/linear_2"),
    "output": ("attention.output.dense", "attention/linear_3"),
    "mlp_hidden": ("mlp.dense1", "mlp/linear"),
    "mlp_output": ("mlp.dense2", "mlp/linear_1"),
}
# The port's and the authors' word for an input and output of a kind.
_MODALITIES = {"audio": "audio", "label": "label", "video": "image"}


def table(section: Mapping[str, Any]) -> list[Name]:
    """Returns what the parameters of a model are called, those that the port can have.

    Args:
      section: `config.model`, of what `configs.from_port` returns, under any names of its inputs
        and outputs.
    """
    kinds = sorted(keys["kind"] for keys in section["outputs"].values())
    single = kinds[0] if len(kinds) == 1 else "multimodal"
    encoder = "encoder" if single == "multimodal" else "perceiver_encoder"
    embeddings = f"{encoder}/~/trainable_position_encoding/pos_embs"
    names = [Name("encoder/latents", "perceiver.embeddings.latents", embeddings)]
    names += _encoder(section["encoder"], encoder)
    for name, keys in section["inputs"].items():
        names += _INPUTS[keys["kind"]](name, keys)
    if single == "multimodal":
        return names + _multimodal(section)
    return names + _OUTPUTS[single]()


def own(paths: Iterable[str]) -> list[Name]:
    """The table of parameters that are called as they are here."""
    return [Name(path, path, path) for path in paths]


def read(
    tensors: Mapping[str, np.ndarray],
    names: list[Name],
    shapes: Mapping[str, tuple[int, ...]],
    source: str,
    where: str,
) -> dict[str, dict[str, np.ndarray]]:
    """Returns parameters by module path and name.

    Args:
      tensors: of a file, by name.
      names: of `table`.
      shapes: of all parameters of the model, by path.
      source: whose names they are: 'port' or 'authors'.
      where: they are from, for messages.

    Raises:
      UserError: if a parameter is not there, one has another shape or is no floats, or something is
        there that is no parameter.
    """
    wanted = {getattr(name, source): name for name in names}
    assert {name.ours for name in names} == set(shapes), "The table is not of this model."
    missing = [f"{x} (here {wanted[x].ours})" for x in wanted if x not in tensors]
    if missing:
        raise config_lib.UserError(
            f"{where} lacks {_listed(missing)}; expected all of the model's {len(wanted)} arrays. "
            "Take the file, and its config.json, of one and the same model."
        )
    unused = [x for x in tensors if x not in wanted and not UNUSED.fullmatch(x)]
    if unused:
        raise config_lib.UserError(
            f"{where} has {_listed(unused)}, which the model has no use for; expected its "
            f"{len(wanted)} arrays alone. Take the file, and its config.json, of one and the same "
            "model."
        )
    params = {}
    for there, name in wanted.items():
        module, _, last = name.ours.rpartition("/")
        params.setdefault(module, {})[last] = _fit(
            tensors[there], name, shapes[name.ours], source, f"{there} of {where}"
        )
    return params


def write(
    params: Mapping[str, Mapping[str, Any]], names: list[Name], counts: bool = True
) -> dict[str, np.ndarray]:
    """Returns the port's tensors; the inverse of `read`.

    Args:
      params: by module path and name.
      names: of `table`.
      counts: add the counters of batch norms, which the port has.
    """
    tensors = {}
    for name in names:
        module, _, last = name.ours.rpartition("/")
        x = np.asarray(params[module][last], np.float32)
        if name.axes is not None:
            x = np.transpose(x, np.argsort(name.axes))
        if name.port.startswith(("perceiver.input_preprocessor.padding", _MASK, _PADDING)):
            x = x[None]
        tensors[name.port] = np.ascontiguousarray(x)
        if counts and name.port.endswith("batchnorm.running_mean"):
            counter = name.port.replace("running_mean", "num_batches_tracked")
            tensors[counter] = np.zeros((), np.int64)
    return tensors


_MASK, _PADDING = "perceiver.input_preprocessor.mask", "perceiver.decoder.padding"


def _fit(x, name, shape, source, what):
    """Brings an array into our shape."""
    if not jnp.issubdtype(x.dtype, jnp.floating):  # NumPy's doesn't know bfloat16.
        raise config_lib.UserError(
            f"{what} is {x.dtype}; expected floats, for it is the parameter {name.ours}."
        )
    axes = name.axes if source == "port" else None
    if axes is not None and x.ndim == len(axes):
        x = x.transpose(axes)
    if _without_ones(x.shape) != _without_ones(shape):
        order = "" if axes is None else ", in the order here"
        raise config_lib.UserError(
            f"{what} has shape {x.shape}{order}; expected {shape}, for it is the parameter "
            f"{name.ours}. Take the file, and its config.json, of one and the same model."
        )
    x = np.ascontiguousarray(x.reshape(shape), np.float32)
    if not np.isfinite(x).all():
        raise config_lib.UserError(
            f"{what} has NaN or infinity; expected finite numbers, for it is the parameter "
            f"{name.ours}. Take another checkpoint."
        )
    return x


def _without_ones(shape):
    return [size for size in shape if size != 1]


def _linear(ours, port, authors):
    return [
        Name(f"{ours}/w", f"{port}.weight", f"{authors}/w", _LINEAR),
        Name(f"{ours}/b", f"{port}.bias", f"{authors}/b"),
    ]


def _block(ours, port, authors, norms):
    names = []
    for index, (part, there) in enumerate(norms.items()):
        norm = f"{authors}/layer_norm{f'_{index}' if index else ''}"
        names += [
            Name(f"{ours}/{part}/scale", f"{port}.{there}.weight", f"{norm}/scale"),
            Name(f"{ours}/{part}/offset", f"{port}.{there}.bias", f"{norm}/offset"),
        ]
    for part, (there, name) in _LINEARS.items():
        names += _linear(f"{ours}/{part}", f"{port}.{there}", f"{authors}/{name}")
    return names


def _cross_attend(ours, port, authors):
    return _block(ours, port, authors, _NORMS_OF_CROSS_ATTEND)


def _encoder(encoder, authors):
    """A cross-attend, and the self-attends of the latent Transformers in order."""
    there = "perceiver.encoder"
    names, index = [], 0
    layers = layers_lib.resolve(encoder["layers"], encoder.get("reads") or ())
    for weights, is_cross_attend in {x.weights: x.is_cross_attend for x in layers}.items():
        ours = f"encoder/{weights}"
        if is_cross_attend:
            names += _cross_attend(ours, f"{there}.cross_attention", f"{authors}/~/cross_attention")
            continue
        for i in range(encoder["num_self_attends"]):
            theirs = f"{authors}/~/self_attention{f'_{index}' if index else ''}"
            port = f"{there}.self_attends.{index}"
            names += _block(f"{ours}/self_attend_{i}", port, theirs, _NORMS)
            index += 1
    return names


# ------------------------------------------------------------------------------- inputs
_PREPROCESSOR = "perceiver.input_preprocessor"


def _image(name, keys):
    stem = (keys.get("stem") or {}).get("kind")
    encoding = (keys.get("position_encoding") or {}).get("kind")
    names = []
    if stem == "conv1x1":
        port, authors = f"{_PREPROCESSOR}.convnet_1x1", "image_preprocessor/~/conv2_d"
        names += [
            Name(f"{name}/stem/conv/w", f"{port}.weight", f"{authors}/w", _CONVOLUTION),
            Name(f"{name}/stem/conv/b", f"{port}.bias", f"{authors}/b"),
        ]
    if stem == "conv":
        port, authors = f"{_PREPROCESSOR}.convnet", "image_preprocessor/~/conv2_d_downsample/~"
        ours, norm = f"{name}/stem/batch_norm", f"{authors}/batchnorm"
        names += [
            Name(f"{name}/stem/conv/w", f"{port}.conv.weight", f"{authors}/conv/w", _CONVOLUTION),
            Name(f"{ours}/scale", f"{port}.batchnorm.weight", f"{norm}/scale"),
            Name(f"{ours}/offset", f"{port}.batchnorm.bias", f"{norm}/offset"),
            Name(f"{ours}/mean", f"{port}.batchnorm.running_mean", f"{norm}/~/mean_ema/average"),
            Name(f"{ours}/variance", f"{port}.batchnorm.running_var", f"{norm}/~/var_ema/average"),
        ]
    if encoding == "learned":
        authors = "image_preprocessor/~_build_network_inputs"
        names.append(
            Name(
                f"{name}_position_encoding/position_embedding",
                f"{_PREPROCESSOR}.position_embeddings.position_embeddings",
                f"{authors}/trainable_position_encoding/pos_embs",
            )
        )
        names += _linear(
            f"{name}_position_encoding/projection",
            f"{_PREPROCESSOR}.positions_projection",
            f"{authors}/position_encoding_projector/linear",
        )
    return names


def _text(name, keys):
    del keys
    return [
        Name(f"{name}/token_embedding", f"{_PREPROCESSOR}.embeddings.weight", "embed/embeddings"),
        Name(
            f"{name}_position_encoding/position_embedding",
            f"{_PREPROCESSOR}.position_embeddings.weight",
            "trainable_position_encoding/pos_embs",
        ),
    ]


def _frames(name, keys):
    del keys
    port = f"{_PREPROCESSOR}.conv_after_patches"
    return _linear(f"{name}/projection", port, "image_preprocessor/patches_linear")


def _padded(name, keys):
    modality = _MODALITIES[keys["kind"]]
    authors = f"multimodal_preprocessor/{modality}"
    return [
        Name(
            f"inputs/{name}_embedding",
            f"{_PREPROCESSOR}.padding.{modality}",
            f"{authors}_padding/pos_embs",
        ),
        Name(
            f"inputs/{name}_mask_token",
            f"{_PREPROCESSOR}.mask.{modality}",
            f"{authors}_mask_token/pos_embs",
        ),
    ]


_INPUTS: dict[str, Callable] = {
    "audio": _padded,
    "frames": _frames,
    "image": _image,
    "label": _padded,
    "text": _text,
    "video": _padded,
}


# ------------------------------------------------------------------------------- outputs
def _query():
    port, authors = "perceiver.decoder.decoder", "classification_decoder/~/basic_decoder"
    return [
        Name(
            "decoder/query",
            f"{port}.output_position_encodings.position_embeddings",
            f"{authors}/~/trainable_position_encoding/pos_embs",
        ),
        *_decoder(port, authors),
        *_linear("decoder/logits", f"{port}.final_layer", f"{authors}/output"),
    ]


def _tied_text():
    port, authors = "perceiver.decoder", "basic_decoder"
    return [
        Name(
            "decoder_position_encoding/position_embedding",
            f"{port}.output_position_encodings.position_embeddings",
            f"{authors}/~/trainable_position_encoding/pos_embs",
        ),
        *_decoder(port, authors),
        Name("decoder/bias", "embedding_decoder.bias", "embedding_decoder/bias"),
    ]


def _flow():
    port, authors = "perceiver.decoder.decoder", "flow_decoder/~/basic_decoder"
    output = _linear("decoder/output", f"{port}.final_layer", f"{authors}/output")
    return [*_decoder(port, authors), *output]


def _decoder(port, authors):
    there = f"{port}.decoding_cross_attention"
    return _cross_attend("decoder/cross_attend", there, f"{authors}/cross_attention")


_OUTPUTS: dict[str, Callable] = {"flow": _flow, "query": _query, "text": _tied_text}
_POSTPROCESSORS = {"audio": "audio", "image": "projection", "label": "classification"}


def _multimodal(section):
    """The decoder that all modalities share, and what each has of its own."""
    port, authors = "perceiver.decoder.decoder", "multimodal_decoder/~/basic_decoder"
    names = _decoder(port, authors)
    names += _linear("decoder/output", f"{port}.final_layer", f"{authors}/output")
    for name, keys in section["outputs"].items():
        modality = _modality_of(name, keys, section["inputs"])
        if modality == "label":
            names.append(
                Name(
                    f"decoder/{name}/query",
                    "perceiver.decoder.modalities.label.decoder.output_position_encodings"
                    ".position_embeddings",
                    "classification_decoder/~/basic_decoder/~/trainable_position_encoding/pos_embs",
                )
            )
        names.append(
            Name(
                f"decoder/{name}/query_padding",
                f"{_PADDING}.{modality}",
                f"multimodal_decoder/~decoder_query/{modality}_padding/pos_embs",
            )
        )
        names += _linear(
            f"decoder/{name}/output",
            f"perceiver.output_postprocessor.modalities.{modality}.classifier",
            f"{_POSTPROCESSORS[modality]}_postprocessor/linear",
        )
    return names


def _modality_of(name, keys, inputs):
    if keys["kind"] == "query":
        return "label"
    return _MODALITIES[inputs[name]["kind"]] if name in inputs else "image"


def _listed(names):
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
