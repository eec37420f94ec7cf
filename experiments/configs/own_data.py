"""One's own data: pictures, sounds, videos, shapes or texts of classes, sized by what was prepared.

    python -m experiments.prepare_data image_folder --source=FOLDER
    python -m experiments.train --config=experiments/configs/own_data.py:NAME --workdir=runs/NAME

Takes some ten minutes on two CPU cores. Any key can be set; what to change when it overfits, is too
slow, or is unbalanced: docs/own_data.md.

Arguments, after a colon and separated by commas: the set's name, and then, if wanted,
- validation: 15 % of the training split are tested on instead of the test split, to choose by.
- balanced: losses of rare classes count for more, so that all classes weigh the same.
- not_mirrored: pictures and videos; else those with colours are, for what is grey may be letters.
- minutes=1|2|5|10|20|60|240: how long to train (10), by an estimate for this machine's cores.
- data_dir=DIR, as the last one: where the set is, if not where TFDS keeps its own.

Chosen on validation parts of small sets (docs/results.md): few inputs that say much (a frame of a
spectrogram, what a convolution makes of 4 x 4 pixels), for a small set does not teach how to put
single pixels together; augmentation that leaves a class what it is; weights not shared, for there
are few; dropout, smoothed labels and a moving average.
"""

from collections.abc import Sequence

import ml_collections

import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import data, recipes, sizing, summary
from perceiver_jax.data import measure
from perceiver_jax.data.builders import isolated

BATCH_SIZE = 64
MIN_STEPS = 1_000  # Of arrays, of which there are often few.


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    arg, _, data_dir = arg.partition(",data_dir=")
    name, _, arg = arg.partition(",")
    if not name:
        raise config_lib.UserError(
            "own_data.py needs the name of a prepared set: own_data.py:NAME. Prepare one first: "
            "python -m experiments.prepare_data --help"
        )
    flags = dict.fromkeys(("validation", "balanced", "not_mirrored"), False)
    args = recipes.parse_arguments(arg, minutes=(1, 2, 5, 10, 20, 60, 240), **flags)
    train_split, test_split = measure.choose_splits(name, data_dir, args.validation)
    found = measure.measure(name, data_dir, train_split)
    inputs = {
        feature: sizing.INPUTS[feature](found.inputs, mirrored=not args.not_mirrored)
        for feature in found.inputs
    }
    config = _recipe(
        f"own_data_{name.replace('/', '_')}",
        inputs,
        dataset=name,
        num_classes=len(found.class_counts),
        multi_label=found.multi_label,
        batch_size=BATCH_SIZE,
    )
    config.data.update(data_dir=data_dir, train_split=train_split, test_split=test_split)
    config.data.batch_size = min(BATCH_SIZE, found.num_train)
    config.data.max_bad_records = found.num_train // 20
    if len(inputs) > 1:
        config.model.fusion.dropout_rates = {"video": 0.3}
    if "points" in inputs:
        config.model.encoder.num_latents = 64
    if args.balanced:
        config.task.class_weights = sizing.balance(found.class_counts)
    config.eval.num_windows = sizing.num_windows(found.inputs)
    batch = data.build_data(**config.data).zero_batch()
    sizing.choose_steps(
        config,
        num_train=found.num_train,
        flops=summary.describe_model(config, batch)["flops"]["executed"],
        minutes=args.minutes or 10,
        cores=isolated.num_cores(),
    )
    print(sizing.report(name, found, config))
    return config


def for_arrays(arrays: data.Data, sets: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The recipe for classes of arrays in memory: series, grids or sets.

    Patches, channels and steps follow from the arrays' sizes; unlike the choices above, they have
    not been compared on validation parts.

    Args:
        arrays: of `data.from_arrays`.
        sets: which of the inputs are sets [N, C], whose order means nothing.

    Raises:
        UserError: these are no arrays of one label.
    """
    target, inputs = sizing.arrays(arrays, sets)
    label = arrays.fields[target]
    config = _recipe(
        "own_arrays",
        inputs,
        dataset="",
        num_classes=label.num_classes,
        multi_label=label.multi_label,
        batch_size=arrays.batch_size,
    )
    config.model.outputs = {target: config.model.outputs.label}
    config.task.target = target
    config.model.encoder.latent_channels = 64
    sizing.set_steps(config, max(MIN_STEPS, 30 * arrays.num_train // arrays.batch_size))
    return config


def _recipe(name, inputs, *, dataset, num_classes, multi_label, batch_size):
    """What all kinds of data share; how long is trained comes later."""
    config = recipes.recipe(
        name,
        dataset=dataset,
        num_classes=num_classes,
        inputs=inputs,
        layers=perceiver_jax.make_layers(2, 2, sharing="none"),
        batch_size=batch_size,
        steps=1,
        eval_every=1,
    )
    recipes.on_cpu(config, batch_size=batch_size, learning_rate=1e-3, warmup_steps=0)
    config.model.encoder.update(num_latents=32, latent_channels=128, num_self_attends=2)
    config.model.encoder.update(num_self_attend_heads=4, dropout_rate=0.1)
    config.task.update(label_smoothing=0.1, loss="sigmoid" if multi_label else "softmax")
    if len(inputs) > 1:
        config.model.fusion = {"modality_channels": 4, "dropout_rates": {}}
    return config
