"""Perceiver IO on bytes of text: what is in the gaps (IO paper: section 4.1, tables 1, 11 and 12).

    python -m experiments.prepare_data tfds --name=c4
    python -m experiments.train --config=experiments/configs/masked_text.py --workdir=runs/text

Expected: the paper gives what follows fine-tuning, 81.0 on average over GLUE.
Hardware: 64 TPUv3, 7.6 steps a second, 500,000 steps: 18 hours.

Your own texts: python -m experiments.prepare_data text_files (or text_table); docs/perceiver_io.md.

Arguments, after a colon:
- mini: texts of 5 Python packages that are installed, minutes on two CPU cores.

The model is that of the released weights; so a run can begin with them (docs/finetuning.md).

Where the paper is silent, or we do otherwise:
- It was trained on C4 (70 %) and Wikipedia (30 %); here on C4 alone.
- Masked words are always replaced by MASK, and there are as many as 15 % of each text's words.
- Texts are read from their beginning; no sentences are packed together.
"""

import ml_collections

from perceiver_jax import recipes
from perceiver_jax.pretrained import configs


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    args = recipes.parse_arguments(arg, mini=False)
    config = recipes.recipe_of(
        "masked_text",
        dataset="c4",
        fields={"text": {"kind": "masked_text", "max_length": 2048, "mask_rate": 0.15}},
        model=configs.released("language-perceiver", "authors"),
        task={"kind": "masked_text", "target": "text"},
        batch_size=2048,
        steps=500_000,
        eval_every=10_000,
    )
    config.data.update(test_split="validation[:20000]", max_bad_records=1000)
    config.optimizer.update(learning_rate=1.25e-3, weight_decay=0.01)
    config.optimizer.schedule = {"name": "cosine", "warmup_steps": 1000}
    if args.mini:
        _shrink(config)
    return config


def _shrink(config: ml_collections.ConfigDict) -> None:
    """The mini: 192 bytes of 4,000 texts, a convolution over 7; 4.62 bits a masked byte.

    Their frequencies alone give 4.80; the word before and its length 3.10.
    """
    config.experiment += "_mini"
    config.data.update(dataset="docstrings", test_split="test")
    config.data.fields.text.max_length = 192
    config.model.inputs.text = recipes.text(192)[1]
    config.model.outputs.text.update(qk_channels=64, v_channels=64, num_heads=4)
    config.model.outputs.text.position_encoding.num_channels = 64
    recipes.on_cpu(config, batch_size=32, learning_rate=2e-3, warmup_steps=100)
    recipes.shrink_encoder(config, num_latents=48, latent_channels=128)
    config.model.encoder.update(qk_channels=64, v_channels=128, num_cross_attend_heads=4)
    config.train.update(steps=600, log_every=50, eval_every=200, checkpoint_every=200)
    config.eval.batch_size = 100
