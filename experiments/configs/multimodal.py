"""Perceiver IO as an autoencoder of video, audio and class (IO paper: 4.3, appendix I, table 4).

    python -m experiments.prepare_data video_folder --source=KINETICS --name=kinetics700_2020
    python -m experiments.train --config=experiments/configs/multimodal.py --workdir=runs/clips

Expected: PSNR of audio 26.97 and of video 24.37, top-1 10.2 % (784 latents, compression 88 times).
Hardware: not given; 4.4 steps a second there. 310 GFLOP an example in training, 6.85 TFLOP in
evaluation, where all 804,737 outputs are decoded.

Your own clips: python -m experiments.prepare_data video_folder; see docs/perceiver_io.md.

Arguments, after a colon and separated by commas:
- latents=784|392|196: 88, 176 or 352 times compressed; audio 26.97, 25.33, 14.15, video 24.37,
  24.27, 23.21, top-1 10.2, 8.6, 11.5.
- mini: clips of 16 Atari games, minutes on two CPU cores.

The model is that of the released weights; so a run can begin with them (docs/finetuning.md).

Where the paper is silent:
- Adam, 100 epochs, a cosine after 1,000 steps of warm-up, and no weight decay.
- Windows are drawn at random, frames cut as in Inception to at least half of their area.
- PSNR: peaks of 1 (video) and 2 (audio, from -1 to 1), the mean over examples.
"""

import math

import ml_collections

from perceiver_jax import recipes
from perceiver_jax.pretrained import configs

BATCH_SIZE = 1024
EPOCH = 545_793 // BATCH_SIZE  # Steps.
WEIGHTS = {"video": 0.03, "audio": 1.0, "label": 1e-4}  # 1.0 of the label: 45 % top-1, 20.7 dB.


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    args = recipes.parse_arguments(
        arg, mini=False, latents=(784, 392, 196), exclusive=[("mini", "latents")]
    )
    video, _ = recipes.video(0.64, 25.0, 224, num_bands=32, crop_area=(0.5, 1.0))
    audio, _ = recipes.audio(0.64, 48_000, num_bands=192)
    config = recipes.recipe_of(
        "multimodal",
        dataset="kinetics700_2020",
        fields={"audio": audio, "label": {"kind": "label"}, "video": video},
        model=configs.released("multimodal-perceiver", "authors"),
        task={"kind": "autoencoding", "weights": WEIGHTS},
        batch_size=BATCH_SIZE,
        steps=100 * EPOCH,
        eval_every=5 * EPOCH,
    )
    config.data.update(test_split="validation", max_bad_records=1000)
    config.model.encoder.num_latents = args.latents or 784
    config.optimizer.update(name="adam", learning_rate=1e-3, weight_decay=0.0, eps=1e-8)
    config.optimizer.schedule = {"name": "cosine", "warmup_steps": 1000}
    config.eval.batch_size = 16
    if args.mini:
        _shrink(config)
    for name in ("audio", "video"):  # Places that are decoded in training: 512 of each.
        places = math.prod(config.model.outputs[name].index_dims)
        config.data.fields[f"{name}_indices"] = {
            "kind": "indices",
            "num_indices": min(512, places // 4),
            "num_places": places,
        }
    return config


def _shrink(config: ml_collections.ConfigDict) -> None:
    """The mini: atari_clips, 8 frames of 32 x 32 and sound at 12 kHz.

    PSNR of video 23.3, of audio 25.8, top-1 92 %: in six minutes little better than a clip's mean
    colour, 22.7, and worse than silence, 28.8.
    """
    config.experiment += "_mini"
    config.data.update(dataset="atari_clips", test_split="test")
    config.data.fields.video.update(num_frames=8, frames_per_second=12.5, image_size=32)
    config.data.fields.audio.update(num_samples=7_680, sample_rate=12_000)
    inputs, outputs = config.model.inputs, config.model.outputs
    inputs.label.num_classes = outputs.label.size = 16
    inputs.audio.position_encoding = recipes.fourier(24, 480)
    inputs.video.position_encoding = recipes.fourier(8, 8, 8, 8)
    outputs.audio.update(index_dims=(480,), position_encoding=recipes.fourier(24, 480))
    outputs.video.update(index_dims=(8, 32, 32), position_encoding=recipes.fourier(8, 8, 32, 32))
    outputs.label.query_channels = 64
    config.task.weights = {"video": 1.0, "audio": 1.0, "label": 0.03}  # Paper's: video later.
    config.model.decoder.update(channels=96, qk_channels=None)
    recipes.on_cpu(config, batch_size=16, learning_rate=3e-3, warmup_steps=50)
    recipes.shrink_encoder(config, num_latents=64, latent_channels=128)
    config.train.update(steps=600, log_every=20, eval_every=200, checkpoint_every=200)
