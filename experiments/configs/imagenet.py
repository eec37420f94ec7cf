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

from experiments import arguments
import perceiver_jax

TRAIN_EXAMPLES = 1_281_167


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    args = arguments.parse_arguments(
        arg,
        mini=False,
        permuted=False,
        learned_positions=False,
        unshared=False,
        at_start=False,
        cross_attends=(1, 2, 4, 8),
        no_latent_transformer=(4, 8, 12),
        exclusive=(
            ("no_latent_transformer", "cross_attends"),
            ("no_latent_transformer", "at_start"),
            ("no_latent_transformer", "unshared"),
        ),
    )
    name = "_".join(["imagenet", *filter(None, arg.replace("=", "_").replace(" ", "").split(","))])
    config = ml_collections.ConfigDict({"experiment": name, "seed": 0})

    config.data = {
        "dataset": "imagenet2012",
        "data_dir": "",  # TFDS's own default, ~/tensorflow_datasets.
        "train_split": "train",
        "test_split": "validation",
        "batch_size": 1024,
        "num_workers": 16,
        "feature_names": "",  # Such as "image=photo,label=species", if not plain from types.
        "max_bad_records": 100,  # Left out because they can't be decoded, before the run ends.
        "mixup_alpha": 0.0,  # Off.
        "cutmix_alpha": 0.0,  # Off.
        "modalities": {
            "image": {
                "kind": "image",
                "image_size": 224,
                "channels": 3,
                "crop": "inception",
                "crop_area": (0.08, 1.0),
                "crop_aspect": (3 / 4, 4 / 3),
                "flip": True,
                "rand_augment_layers": 4,
                "rand_augment_magnitude": 5.0,
                "rotation_degrees": 0.0,
                "scale": 0.0,
                "shift": 0.0,
            }
        },
    }

    config.model = {
        "num_classes": 1000,
        "inputs": {
            "image": {
                "kind": "image",
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
                "position_encoding": {
                    "kind": "fourier",
                    "num_bands": 64,
                    "max_resolution": (224, 224),
                },
                "permutation_seed": 0 if args.permuted else -1,
            }
        },
        "encoder": {
            "num_latents": 512,
            "latent_channels": 1024,
            "layers": make_layers(args, num_cross_attends=8, num_latent_transformers=8),
            "num_self_attends": 6,
            "num_cross_attend_heads": 1,
            "num_self_attend_heads": 8,
            "dropout_rate": 0.0,
            "latent_init_scale": 0.02,
            "streaming": True,
            "chunk_size": 0,  # Automatic.
            "scan": True,
            "remat": False,
        },
        "decoder": {"kind": "mean_pool"},
        # Of matrix products. Parameters, optimizer, norms' statistics, softmax, logits and loss are
        # float32 in any case.
        "dtype": "bfloat16",
    }
    if args.learned_positions:
        config.model.inputs.image.position_encoding = {
            "kind": "learned",
            "num_channels": 128,
            "init_scale": 1.0,  # The best of appendix B.
        }

    steps_per_epoch = TRAIN_EXAMPLES // config.data.batch_size
    config.train = {
        "steps": 120 * steps_per_epoch,
        "loss": "softmax",
        "label_smoothing": 0.0,
        "ema_decay": 0.0,  # Off.
        "accumulate_steps": 1,  # Parts of a batch that are taken one after another.
        "parallelism": "pmap",  # 'fsdp' divides the state over the devices.
        "log_every": 100,
        "eval_every": 5 * steps_per_epoch,
        "checkpoint_every": 1000,
        "max_checkpoints": 3,
        "max_skipped": 10,  # Updates in a row whose loss or gradient was not finite.
    }
    config.optimizer = {
        "name": "lamb",
        "learning_rate": 0.004,
        # A tenth at epochs 84, 102 and 114 of 120.
        "schedule": {"name": "step", "boundaries": (0.70, 0.85, 0.95), "factor": 0.1},
        "weight_decay": 0.1,
        "max_grad_norm": 10.0,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-6,
    }
    config.eval = {"batch_size": 1024, "num_windows": 1}
    if args.mini:
        _shrink(config, args)
    return config


def make_layers(args, num_cross_attends: int, num_latent_transformers: int) -> tuple[str, ...]:
    """Which weights each layer uses: a row of tables 2, 5, 6 or 7."""
    if args.no_latent_transformer:
        return perceiver_jax.make_layers(args.no_latent_transformer, 0, sharing="none")
    if args.learned_positions:
        num_cross_attends = 1
    num_cross_attends = args.cross_attends or num_cross_attends
    return perceiver_jax.make_layers(
        num_cross_attends,
        max(num_latent_transformers, num_cross_attends),
        placement="start" if args.at_start else "interleaved",
        sharing="none" if args.unshared else "all_but_first",
    )


def _shrink(config: ml_collections.ConfigDict, args) -> None:
    """The mini: mnist5k, 4,000 digits of 28 x 28 to train on; 0.97 top-1 in minutes."""
    config.data.update(dataset="mnist5k", test_split="test", batch_size=32, num_workers=0)
    config.data.modalities.image.update(
        image_size=28,
        channels=1,
        crop="none",
        flip=False,  # Digits have a left and a right.
        rand_augment_layers=0,
        rotation_degrees=12.0,
        scale=0.15,
        shift=0.06,
    )
    config.model.num_classes = 10
    config.model.dtype = "float32"
    image = config.model.inputs.image
    image.update(mean=(0.1307,), std=(0.3081,))
    if args.learned_positions:
        image.position_encoding.num_channels = 32
    else:
        image.position_encoding.update(num_bands=8, max_resolution=(28, 28))
    config.model.encoder.update(
        num_latents=32,
        latent_channels=96,
        layers=make_layers(args, num_cross_attends=2, num_latent_transformers=2),
        num_self_attends=2,
        num_self_attend_heads=4,
        scan=False,  # Compiles longer, but steps of so small layers are faster.
    )
    config.optimizer.update(name="adam", learning_rate=1.5e-3, weight_decay=0.1, eps=1e-8)
    config.optimizer.schedule = {"name": "cosine", "warmup_steps": 200}
    config.train.update(
        steps=6000, label_smoothing=0.1, log_every=50, eval_every=1500, checkpoint_every=1500
    )
    config.eval.batch_size = 250
