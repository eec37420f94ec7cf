"""Perceiver IO on optical flow (IO paper: section 4.2, appendix H, table 3).

    python -m experiments.prepare_data flow_folder --source=AUTOFLOW --name=autoflow
    python -m experiments.train --config=experiments/configs/flow.py --workdir=runs/flow

Expected, EPE in pixels: Sintel clean 1.81, final 2.42, KITTI 4.98; of AutoFlow none is given.
Hardware: not given. 987 GFLOP an example forward, 182,528 pixels.

Your own pairs: python -m experiments.prepare_data flow_folder; see docs/perceiver_io.md.

Arguments, after a colon:
- mini: synthetic pairs of moving digits, minutes on two CPU cores.

The model is that of the released weights; so a run can begin with them (docs/finetuning.md).

Where the paper is silent, or we do otherwise:
- The loss is the end-point error. No weight decay.
- Augmentation is a random cut alone. The paper has another phase before, without augmentation, and
  feeds each pair in both directions, for which the flow back is needed, too.
"""

import ml_collections

from perceiver_jax import recipes
from perceiver_jax.pretrained import configs

BATCH_SIZE = 512
EPOCH = 400_000 // BATCH_SIZE  # Steps.
SIZE = (368, 496)


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    args = recipes.parse_arguments(arg, mini=False)
    cut = {"image_size": SIZE, "flip": False}
    config = recipes.recipe_of(
        "flow",
        dataset="autoflow",
        fields={"frames": {"kind": "frames", **cut}, "flow": {"kind": "flow", **cut}},
        model=configs.released("optical-flow-perceiver", "authors"),
        task={"kind": "flow", "target": "flow"},
        batch_size=BATCH_SIZE,
        steps=480 * EPOCH,
        eval_every=10 * EPOCH,
    )
    config.data.max_bad_records = 100
    config.model.encoder.remat = True
    config.optimizer.update(learning_rate=4e-4, weight_decay=0.0)
    config.optimizer.schedule = {"name": "cosine"}
    config.eval.batch_size = 64
    if args.mini:
        _shrink(config)
    return config


def _shrink(config: ml_collections.ConfigDict) -> None:
    """The mini: 24 x 24 pixels of 2,000 pairs.

    Test EPE 1.53; without motion 2.68, with each pair's most frequent flow 1.25.
    """
    config.experiment += "_mini"
    config.data.dataset = "moving_digits"
    for field in config.data.fields.values():
        field.image_size = (24, 24)
    # The 3 x 3 of the paper are too few to see a motion of 3 pixels in.
    config.model.inputs.frames.update(patch_size=(7, 7), num_channels=64)
    config.model.inputs.frames.position_encoding = recipes.fourier(12, 24, 24)
    config.model.outputs.flow.scale = 1.0
    recipes.on_cpu(config, batch_size=16, learning_rate=3e-3, warmup_steps=100)
    recipes.shrink_encoder(config, num_latents=64, latent_channels=96)
    config.model.encoder.remat = False
    config.train.update(steps=1500, log_every=50, eval_every=500, checkpoint_every=500)
    config.eval.batch_size = 50
