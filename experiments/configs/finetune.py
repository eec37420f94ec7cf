"""Fine-tuning of a released model on one's own pictures or sentences, a few of each class.

    python -m experiments.prepare_data image_folder --source=FOLDER
    python -m experiments.train --config=experiments/configs/finetune.py:fourier \
        --config.data.dataset=NAME --workdir=runs/NAME

Arguments, after a colon, one of:
- fourier (the default), learned, conv: a model of ImageNet, see imagenet_io.py; of pictures.
- text: the language model, see masked_text.py; of sentences, of which a class is known
  (python -m experiments.prepare_data text_table --source=FILE, or any set of TFDS such as
  glue/sst2 by `tfds`).

There is no mini: a small model has no released weights. What fine-tuning does is seen in minutes on
two cores with imagenet.py:mini, whose own run on other digits is the source (docs/finetuning.md).

The weights are downloaded when training begins; --config.init.source=FOLDER reads them from a disk.
A workdir of imagenet_io.py or masked_text.py will do as well. What starts at random is said: the
layer of the classes, and all of the decoder of text, which had none.

Models compute as the authors' code, with which the weights were trained: with GELU's tanh, and
'same' convolutions. Those that Hugging Face's files describe don't, which the log says, too.

Hardware: one GPU of 80 GB; of 40 GB with --config.train.accumulate_steps=4. 2,000 steps should take
half an hour on an A100 (from FLOPs, at 30 % of its peak: not run by us). Without a GPU a step of 8
pictures takes a minute on two cores, if the decoder alone is trained:
--config.optimizer.frozen="('encoder/*',)" --config.data.batch_size=8 --config.train.steps=100
--config.eval.batch_size=8 --config.model.dtype=float32 --config.data.num_workers=0

Hyper-parameters. The authors fine-tuned on much: all of ImageNet after JFT-300M (appendix A.2), and
GLUE (table 13: 10 epochs, batch 16 to 64, LAMB at 1e-5 to 1e-4, 200 steps of warm-up, weight decay
0.01), which text takes. Pictures take what is usual for ViTs: AdamW at 1e-4, a short warm-up and a
cosine; layers learn the more slowly the nearer they are to the input, by 0.75 (BEiT, Bao et al.
2021: 0.65 to 0.85; MAE, He et al. 2021: 0.65 to 0.75), weight decay 0.05, label smoothing 0.1; and
2,000 steps, as VTAB has 2,500 (Zhai et al. 2019). None of it was tuned here: the weights were not
at hand. Try learning rates of 3e-5 to 3e-4 first.
"""

import ml_collections

from perceiver_jax import recipes
from perceiver_jax.pretrained import configs

KINDS = ("fourier", "learned", "conv", "text")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    args = recipes.parse_arguments(arg, exclusive=[KINDS], **dict.fromkeys(KINDS, False))
    kind = next((kind for kind in KINDS if getattr(args, kind)), "fourier")
    config = _text() if kind == "text" else _pictures(kind)
    config.data.num_workers = 8
    config.train.update(log_every=20, checkpoint_every=200, max_checkpoints=1)
    return config


def _pictures(kind: str) -> ml_collections.ConfigDict:
    name = f"vision-perceiver-{kind}"
    image, _ = recipes.image(224, num_bands=64, crop="inception", flip=True, crop_area=(1 / 3, 1.0))
    config = recipes.recipe_of(
        f"finetune_{kind}",
        dataset="mnist5k",  # To try it; --config.data.dataset sets the number of classes, too.
        fields={"image": image, "label": {"kind": "label"}},
        model=configs.released(name, "authors"),
        task=recipes.classes("label"),
        batch_size=64,
        steps=2000,
        eval_every=200,
    )
    config.init.source = name
    config.model.outputs.label.size = 10
    config.task.label_smoothing = 0.1
    config.optimizer.update(
        name="adam",
        learning_rate=1e-4,
        weight_decay=0.05,
        depth_decay=0.75,
        max_grad_norm=1.0,
        eps=1e-8,
    )
    config.optimizer.schedule = {"name": "cosine", "warmup_steps": 100}
    return config


def _text() -> ml_collections.ConfigDict:
    name = "language-perceiver"
    port = configs.RELEASED[name] | {"architectures": [configs.TEXT_CLASSES], "num_labels": 5}
    config = recipes.recipe_of(
        "finetune_text",
        dataset="docstrings",  # To try it, as above.
        # The first 512 bytes: a sentence is shorter. The model has positions for 2,048.
        fields={"text": {"kind": "text", "max_length": 512}, "label": {"kind": "label"}},
        model=configs.from_port(port, "authors"),
        task=recipes.classes("label"),
        batch_size=32,
        steps=2000,
        eval_every=200,
    )
    config.init.source = name
    config.optimizer.update(learning_rate=5e-5, weight_decay=0.01, max_grad_norm=1.0)
    config.optimizer.schedule = {"name": "cosine", "warmup_steps": 200}
    return config
