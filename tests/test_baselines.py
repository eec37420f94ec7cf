"""The models that the paper compares with: what they depend on, learn and refuse."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import attention_looks, batch_norm, config_file, summary
from perceiver_jax.pretrained import convert

GRID = (4, 6)
ENCODERS = {
    "point_net": dict(channels=(7, 11), head_channels=(5,)),
    "resnet": dict(grid=GRID, channels=(5, 7), blocks=(1, 2)),
    "transformer": dict(channels=12, num_layers=2, num_heads=3),
    "vit": dict(grid=GRID, patch_size=(2, 3), channels=12, num_layers=1, num_heads=2),
}
FEATURES = {"point_net": (1, 5), "resnet": (2 * 3, 7), "transformer": (24, 12), "vit": (4, 12)}
IMAGES = {"image": np.random.default_rng(0).integers(0, 256, (3, *GRID, 1), np.uint8)}


def make_config(kind, permutation_seed=-1, **changes):
    image = dict(
        kind="image",
        mean=(0.1,),
        std=(0.3,),
        position_encoding=dict(kind="fourier", num_bands=2),
        permutation_seed=permutation_seed,
    )
    return dict(
        inputs=dict(image=image),
        encoder=dict(kind=kind, **ENCODERS[kind]),
        outputs=dict(label=dict(kind="mean_pool", size=10)),
    ) | dict(changes)


def make_params(model, batch=IMAGES):
    """Random ones, for a new model gives every class the same score."""
    params = jax.jit(model.init)(jax.random.key(0), batch)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [
        jax.random.uniform(k, x.shape, minval=-0.5, maxval=0.5)
        for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


@pytest.mark.parametrize("kind", ENCODERS)
def test_permuted_pixels_change_what_looks_at_a_grid_and_nothing_else(kind):
    losses = []
    for seed in (-1, 3):
        model = perceiver_jax.build_model(make_config(kind, seed))
        logits = jax.jit(model.apply)(make_params(model), None, IMAGES)["label"]
        losses.append(-jax.nn.log_softmax(logits)[:, 3])
    assert np.ptp(losses[0]) > 1e-4  # It depends on the image.
    moved = np.abs(losses[1] - losses[0]).max()
    assert moved > 1e-3 if kind in ("resnet", "vit") else moved < 1e-4


@pytest.mark.parametrize("kind", ENCODERS)
def test_features_have_the_documented_shape_and_every_parameter_learns(kind):
    model = perceiver_jax.build_model(make_config(kind))
    params = make_params(model)
    features = jax.eval_shape(model.latents, params, IMAGES)
    assert features.shape == (3, *FEATURES[kind])

    def loss(params):
        out, averages = model.apply_training(params, jax.random.key(0), IMAGES)
        return -jax.nn.log_softmax(out["label"])[:, 3].sum(), averages

    grads, averages = jax.jit(jax.grad(loss, has_aux=True))(params)
    # What is added before a batch norm, or to a key, cancels; the maximum of ReLUs is positive.
    still = {
        f"{path}/{name}"
        for path, leaves in grads.items()
        for name, x in leaves.items()
        if name not in batch_norm.AVERAGES and np.abs(x).max() < 1e-6
    }
    cancel = ("projection/b", "key/b", "point_1/batch_norm/offset")
    assert all(path.endswith(cancel) for path in still), still
    norms = {path for path in params if "batch_norm" in path}
    assert set(averages) == norms
    assert bool(norms) == (kind in ("point_net", "resnet"))
    for path in norms:
        assert jnp.abs(averages[path]["mean"] - params[path]["mean"]).max() > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(kind="resnet50"), "Unknown config.model.encoder.kind 'resnet50'.*point_net.*resnet"),
        (dict(dropout_rate=0.1), "Unknown key config.model.encoder.dropout_rate"),
        (dict(blocks=(1, 2, 3)), "config.model.encoder.blocks has 3 numbers for 2 of channels"),
        (dict(channels=(0, 7)), "config.model.encoder.channels is .* at least 1"),
        (dict(patch_size=(2, 2)), "config.model.encoder.kind is 'resnet'.*is for 'vit'"),
    ],
)
def test_a_baseline_that_can_not_be_is_refused_when_it_is_built(change, message):
    config = make_config("resnet")
    config["encoder"] |= change
    with pytest.raises(perceiver_jax.config.UserError, match=message):
        perceiver_jax.build_model(config)


def test_a_baseline_says_what_it_has_not():
    model = perceiver_jax.build_model(make_config("resnet"))
    params = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    for call in (
        lambda: model.attention_maps(params, IMAGES, [0]),
        lambda: model.initial_latents(params, 3),
        lambda: model.step(params, None, IMAGES),
        lambda: model.decode(params, None),
        lambda: convert.to_port(make_config("resnet")),
    ):
        with pytest.raises(perceiver_jax.config.UserError, match="'resnet', a baseline"):
            call()
    masked = IMAGES | {"image_mask": np.array([True, False, True])}
    with pytest.raises(perceiver_jax.config.UserError, match="have a mask; expected none"):
        jax.eval_shape(model.init, jax.random.key(0), masked)
    other = {"image": np.zeros((3, 5, 5, 1), np.uint8)}
    with pytest.raises(perceiver_jax.config.UserError, match="24 places, for 25 inputs"):
        jax.eval_shape(model.init, jax.random.key(0), other)
    with pytest.raises(perceiver_jax.config.UserError, match="gelu is 'exact'"):
        perceiver_jax.build_model(make_config("resnet", gelu="exact"))


def test_a_baseline_is_trained_described_and_used_as_a_perceiver_is(tmp_path):
    config = config_file.load_config(
        "experiments/configs/imagenet.py:mini",
        {
            "data.train_split": "train[:40]",
            "data.test_split": "test[:8]",
            "data.batch_size": 8,
            "data.fields.image.image_size": 6,
            "train.steps": 2,
            "optimizer.schedule.warmup_steps": 1,
            "eval.batch_size": 8,
        },
    ).copy_and_resolve_references()
    config.unlock()
    config.model.encoder = ml_collections.ConfigDict(
        dict(kind="resnet", grid=(6, 6), channels=(5,), blocks=(1,))
    )
    described = summary.describe_model(config, {"image": np.zeros((1, 6, 6, 1), np.uint8)})
    assert described["latents"] == {"number": 36, "channels": 5}
    assert described["input"] == {"number": 36, "channels": 35}
    metrics = perceiver_jax.train(config, tmp_path, quiet=True)
    assert perceiver_jax.evaluate(tmp_path, quiet=True) == metrics
    run = perceiver_jax.load_run(tmp_path)
    assert run.params["encoder/batch_norm"]["mean"].any()  # Moved.
    ((name, probability), *_) = run.predict({"image": np.zeros((9, 9, 1), np.uint8)})[0]["label"]
    assert name in run.class_names["label"] and 0 < probability < 1
    for use in (
        lambda: attention_looks.find_layers(run, ["cross"]),
        lambda: perceiver_jax.export(run, tmp_path / "export"),
    ):
        with pytest.raises(perceiver_jax.config.UserError, match="a baseline"):
            use()
    config.optimizer.depth_decay = 0.9
    with pytest.raises(perceiver_jax.config.UserError, match="depth_decay is 0.9"):
        perceiver_jax.train(config, tmp_path / "other", quiet=True)
