"""ImageNet classification from pixels (section 4.1; tables 1, 2, 5, 6 and 7).

    python -m experiments.train --config=experiments/configs/imagenet.py --workdir=runs/imagenet

Expected: 78.0 % top-1 on the 50,000 validation images.
Hardware: up to 64 TPUs; type and hours are not given in the paper.

Arguments, after a colon and separated by commas:
- permuted: all inputs in one fixed random order (table 2: 78.0 as well).
- learned_positions: 128 learned channels instead of Fourier features, and one cross-attend, since
  eight were unstable (table 2: 70.9, permuted or not).
- unshared: every layer has its own weights (table 7: 72.9).
- cross_attends=1|2|4|8: interleaved with the eight latent Transformers (table 6: 76.7, 76.5, 76.5,
  78.0).
- at_start: all cross-attends first (table 6: 76.7, 76.7, 75.9, 73.7).
- no_latent_transformer=4|8|12: so many unshared cross-attends and nothing else (table 5: 39.4,
  45.3, out of memory).
- mini: the same on 5,000 MNIST digits, minutes on two CPU cores.

Where the paper is silent we chose:
- Batch 1024 (the paper's ablations used 64 and 256), weight decay 0.1 and clipping at 10: those of
  the authors' later paper, Perceiver IO, which says that the latter two helped.
- No label smoothing, mixup or cutmix: Perceiver IO has them, this paper mentions none.
- No warm-up: none is mentioned, and Perceiver IO says that it often stopped training with LAMB.
- RandAugment of 4 layers and magnitude 5: Perceiver IO says that it was the same here.
- The first latent Transformer shares its weights with the others: the only reading of the text
  that gives table 7's 44.9 M parameters.
- 2 or 4 interleaved cross-attends are spaced evenly.
"""

import ml_collections

import perceiver_jax
from perceiver_jax import recipes

BATCH_SIZE = 1024
EPOCH = 1_281_167 // BATCH_SIZE  # Steps.


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    args = recipes.parse_arguments(
        arg,
        **dict.fromkeys(("mini", "permuted", "learned_positions", "unshared", "at_start"), False),
        cross_attends=(1, 2, 4, 8),
        no_latent_transformer=(4, 8, 12),
        exclusive=[("no_latent_transformer", x) for x in ("cross_attends", "at_start", "unshared")],
    )
    image = recipes.image(224, num_bands=64, crop="inception", flip=True, rand_augment_layers=4)
    digit = recipes.image(
        28,
        num_bands=8,
        channels=1,
        mean=(0.1307,),
        std=(0.3081,),
        rotation_degrees=12.0,  # And never mirrored: digits have a left and a right.
        scale=0.15,
        shift=0.06,
    )
    config = recipes.recipe(
        "_".join(["imagenet", *filter(None, arg.replace("=", "_").replace(" ", "").split(","))]),
        dataset="imagenet2012",
        num_classes=1000,
        inputs={"image": digit if args.mini else image},
        layers=_layers(args, 2 if args.mini else 8),
        batch_size=BATCH_SIZE,
        steps=120 * EPOCH,
        eval_every=5 * EPOCH,
    )
    config.data.update(test_split="validation", max_bad_records=100)
    if args.mini:
        _shrink(config)
    if args.permuted:
        config.model.inputs.image.permutation_seed = 0
    if args.learned_positions:
        config.model.inputs.image.position_encoding = {
            "kind": "learned",
            "num_channels": 32 if args.mini else 128,
            "init_scale": 1.0,  # The best of appendix B.
        }
    return config


def _layers(args, depth: int) -> tuple[str, ...]:
    """Which weights each layer uses: a row of tables 2, 5, 6 or 7."""
    if args.no_latent_transformer:
        return perceiver_jax.make_layers(args.no_latent_transformer, 0, sharing="none")
    num_cross_attends = args.cross_attends or (1 if args.learned_positions else depth)
    return perceiver_jax.make_layers(
        num_cross_attends,
        max(depth, num_cross_attends),
        placement="start" if args.at_start else "interleaved",
        sharing="none" if args.unshared else "all_but_first",
    )


def _shrink(config: ml_collections.ConfigDict) -> None:
    """The mini: mnist5k, 4,000 digits of 28 x 28 to train on; 0.97 top-1 in minutes."""
    config.data.update(dataset="mnist5k", test_split="test")
    config.model.outputs.label.size = 10
    recipes.on_cpu(config, batch_size=32, learning_rate=1.5e-3, warmup_steps=200)
    config.model.encoder.update(
        num_latents=32, latent_channels=96, num_self_attends=2, num_self_attend_heads=4
    )
    config.train.update(steps=6000, log_every=50, eval_every=1500, checkpoint_every=1500)
    config.task.label_smoothing = 0.1
    config.eval.batch_size = 250
