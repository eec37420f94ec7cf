"""What a model attends to in an example, as pictures."""

import functools
import math
from typing import Any

import jax
import numpy as np

from perceiver_jax import attention_pictures, layers
from perceiver_jax.serving import answers, decoding

_MOST_NUMBERS = 2**28  # Of a map: scores and weights of it take 2 GiB.
_LATENTS = 3  # That are shown one by one.
_SIDE = {"audio": 360, "mel": 360, "text": 448, "video": 360}  # Pixels, see `overlay`; else 224.


def cross_attends(run: Any) -> list[dict[str, Any]]:
    """Returns the cross-attends that have maps: `index` among the layers, and what each `reads`."""
    resolved = layers.of_encoder(run.config.model.encoder)
    return [
        {"index": i, "reads": layer.reads}
        for i, layer in enumerate(resolved)
        if layer.is_cross_attend
    ]


class Looking:
    """The maps of a model, compiled for each layer."""

    def __init__(self, run: Any):
        """Compiles nothing yet."""
        self._run = run
        self._maps = jax.jit(self._mean_maps, static_argnames="layer")

    def look(self, batch: dict[str, np.ndarray], layer: int) -> dict[str, Any]:
        """Returns the pictures of an example, as JSON values.

        Args:
            batch: of the one example.
            layer: index of a cross-attend among the layers.

        Returns:
            `pictures`: by input the example itself, then with the mean of all latents' attention
            over it, and of some latents that differ from it most; `share`, how much of the
            attention goes to the input. Each is a PNG file in base64.

        Raises:
            decoding.RefusedError: the layer has no map, or it is too large.
        """
        known = [found["index"] for found in cross_attends(self._run)]
        if layer not in known:
            raise decoding.RefusedError(f"Unknown layer {layer}; expected one of {known}.")
        names = {name for x in self._run.config.model.inputs for name in (x, f"{x}_mask")}
        batch = {name: x[:1] for name, x in batch.items() if name in names}
        maps = functools.partial(self._run.model.attention_maps, indices=(layer,))
        sizes = jax.tree.leaves(jax.eval_shape(maps, self._run.params, batch))
        if sum(math.prod(x.shape) for x in sizes) > 2 * _MOST_NUMBERS:
            raise decoding.RefusedError("The map of this model is too large to be drawn.")
        found = jax.device_get(self._maps(self._run.params, batch, layer=layer))
        pictures = []
        for name, weights in found.items():
            if name in self._run.hidden:
                continue  # The model gets nothing there.
            pictures += self._pictures(name, batch[name][0], weights[0])
        return {"layer": layer, "layers": cross_attends(self._run), "pictures": pictures}

    def _mean_maps(self, params: Any, batch: Any, layer: int) -> dict[str, jax.Array]:
        """The weights [B, N, *X] by input, the mean of the heads."""
        (found,) = self._run.model.attention_maps(params, batch, (layer,))
        return {name: each["weights"].mean(axis=1) for name, each in found.items()}

    def _pictures(self, name: str, values: np.ndarray, weights: np.ndarray) -> list[dict]:
        kind = self._run.config.model.inputs[name].kind
        side = _SIDE.get(kind, 224)
        draw = functools.partial(attention_pictures.overlay, kind, values, side=side)
        mean = weights.mean(axis=0)
        drawn = [("the input", None, 1.0), ("all latents", mean, 1.0)]
        for latent in _different(weights, _LATENTS):
            drawn.append((f"latent {latent}", weights[latent], float(weights[latent].sum())))
        return [
            {
                "input": name,
                "of": what,
                "share": float(mean.sum()) if grid is mean else share,
                "png": answers.png(draw(grid)),
            }
            for what, grid, share in drawn
        ]


def _different(weights: np.ndarray, number: int) -> list[int]:
    """Returns latents that attend to other places than the mean does, and than each other."""
    flat = weights.reshape(len(weights), -1)
    nearest = np.abs(flat - flat.mean(axis=0)).sum(axis=1)
    found = []
    for _ in range(min(number, len(flat) - 1)):
        found.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.abs(flat - flat[found[-1]]).sum(axis=1))
    return sorted(found)
