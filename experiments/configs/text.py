"""Perceiver IO on bytes of text: which class a text is of (IO paper: section 4.1, tables 1 and 13).

    python -m experiments.prepare_data tfds --name=glue/sst2
    python -m experiments.train --config=experiments/configs/text.py --workdir=runs/sst2

Expected: the paper has no figure without pretraining; with it, 81.0 on average over GLUE. To begin
with the released weights, set config.init.source or take finetune.py (docs/finetuning.md).
Hardware: not given. On a GPU of 80 GB this takes less than an hour.

Your own texts: python -m experiments.prepare_data text_table; see docs/perceiver_io.md.

Arguments, after a colon:
- mini: of which of 5 Python packages a text is, minutes on two CPU cores.

As table 13: 10 epochs, batch 32 (of 16, 32 and 64), LAMB at 1e-4 (of 1e-5 to 1e-4), 200 steps of
warm-up, weight decay 0.01.
"""

import ml_collections

from perceiver_jax import recipes
from perceiver_jax.pretrained import configs

BATCH_SIZE = 32
EPOCH = 67_349 // BATCH_SIZE  # Steps.


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    args = recipes.parse_arguments(arg, mini=False)
    port = configs.RELEASED["language-perceiver"]
    port = port | {"architectures": [configs.TEXT_CLASSES], "num_labels": 2}
    config = recipes.recipe_of(
        "text",
        dataset="glue/sst2",
        fields={"text": {"kind": "text", "max_length": 2048}, "label": {"kind": "label"}},
        model=configs.from_port(port, "authors"),
        task=recipes.classes("label"),
        batch_size=BATCH_SIZE,
        steps=10 * EPOCH,
        eval_every=EPOCH,
    )
    config.data.test_split = "validation"
    config.optimizer.update(learning_rate=1e-4, weight_decay=0.01)
    config.optimizer.schedule = {"name": "cosine", "warmup_steps": 200}
    if args.mini:
        _shrink(config)
    return config


def _shrink(config: ml_collections.ConfigDict) -> None:
    """The mini: 256 bytes of 4,000 texts, a convolution over 7; 79 % top-1 of 5 classes.

    The frequencies of bytes alone give 62 %, words 88 % (docs/results.md).
    """
    config.experiment += "_mini"
    config.data.update(dataset="docstrings", test_split="test")
    config.data.fields.text.max_length = 256
    config.model.inputs.text = recipes.text(256)[1]
    recipes.on_cpu(config, batch_size=32, learning_rate=1e-3, warmup_steps=100)
    recipes.shrink_encoder(config, num_latents=32, latent_channels=96)
    config.model.encoder.update(qk_channels=64, v_channels=96, num_cross_attend_heads=4)
    config.model.outputs.label.update(size=5, query_channels=96)
    config.train.update(steps=1000, log_every=50, eval_every=250, checkpoint_every=250)
    config.eval.batch_size = 100
