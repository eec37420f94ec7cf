"""AudioSet: audio and video of ten-second clips, 527 labels (section 4.2, table 3).

    python -m experiments.train --config=experiments/configs/audioset.py --workdir=runs/audioset

Expected, mAP of the evaluation clips, each the mean over 16 overlapping windows: raw audio and
video 43.5, mel audio and video 43.2 (tuned 44.2), raw audio 38.3, mel audio 38.4, video 25.8.
Hardware: type and hours are not found in the paper.

Arguments, after a colon and separated by commas; without any, raw audio and video:
- audio_raw: raw audio alone.
- audio_mel: a mel spectrogram alone, with SpecAugment.
- video: video alone.
- av_mel: a mel spectrogram and video.
- av_mel_tuned: the same without SpecAugment; the spectrogram is dropped with probability 0.1.
- sequential: audio, then video, again and again: each cross-attend reads one of the two.
- unrolled: each reads the next 8 frames and their sound, by the same weights (docs/streaming.md).
- mini: the same on clips of 16 Atari games, minutes on two CPU cores.

Where the paper is silent we chose:
- Optimizer, learning rate, schedule, batch, weight decay and clipping: as in `imagenet.py`.
- 512 latents of 512 channels, 28.8 M parameters: Perceiver IO found 512 channels best for its own
  Perceiver here. Heads as on ImageNet.
- Video, 16 bands up to the Nyquist frequency of the 16 x 28 x 28 patches: 16 is the only number
  that gives the 487 input channels of Perceiver IO's table 6.
- Audio, 64 bands: as many as elsewhere; the modality embedding fills up to 487 channels.
- Mel, 60 frames of 80 bins (48 kHz, hop 1024), positions in time and frequency: gives the 4,800
  inputs of the text.
- SpecAugment masks twice up to 8 frames and twice up to 10 bins; crops and colours vary as much as
  in Inception.
"""

import ml_collections

import perceiver_jax
from perceiver_jax import recipes

SECONDS = 1.28
BATCH_SIZE = 1024
EPOCH = 1_700_000 // BATCH_SIZE  # Steps.
COLOURS = recipes.COLOURS
MODES = {
    "av_raw": ("raw", "video"),  # Without an argument.
    "audio_raw": ("raw",),
    "audio_mel": ("mel",),
    "video": ("video",),
    "av_mel": ("mel", "video"),
    "av_mel_tuned": ("mel", "video"),
}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    (default, *others), orders = MODES, ("sequential", "unrolled")
    flags = dict.fromkeys(("mini", *others, *orders), False)
    args = recipes.parse_arguments(arg, exclusive=[others, orders], **flags)
    mode = next((mode for mode in others if getattr(args, mode)), default)
    tuned = mode == "av_mel_tuned"
    masks = {} if tuned else {"time_masks": 2, "frequency_masks": 2}  # SpecAugment.
    if args.mini:  # Half of the frames. Not mirrored: games have a left.
        bands = {"raw": 32, "mel": 16}
        video = recipes.video(SECONDS, 12.5, 48, num_bands=8, crop_area=(0.5, 1.0), **COLOURS)
    else:
        bands = {"raw": 64, "mel": 64}
        video = recipes.video(SECONDS, 25.0, 224, num_bands=16, flip=True, **COLOURS)
    kinds = {
        "raw": recipes.audio(SECONDS, 48_000, num_bands=bands["raw"]),  # 480 inputs.
        "mel": recipes.mel(SECONDS, 48_000, num_bands=bands["mel"], **masks),  # 4,800 inputs.
        "video": video,  # 12,544 inputs of 384 values; of the mini 288.
    }
    config = recipes.recipe(
        f"audioset_{mode}",
        dataset="audioset",
        num_classes=527,
        # Raw or mel, it is called `audio`.
        inputs={"video" if kind == "video" else "audio": kinds[kind] for kind in MODES[mode]},
        layers=perceiver_jax.make_layers(2, 2, sharing="none"),
        batch_size=BATCH_SIZE,
        steps=100 * EPOCH,
        eval_every=5 * EPOCH,
    )
    config.data.max_bad_records = 1000
    config.model.encoder.update(latent_channels=512, num_self_attends=8)
    if len(MODES[mode]) > 1:
        # Without video dropout 39.7 (raw) and 39.9 (mel) instead of 43.5 and 43.2.
        rates = {"video": 0.3, "audio": 0.1 if tuned else 0.0}
        config.model.fusion = {"modality_channels": 4, "dropout_rates": rates}
    config.task.loss = "sigmoid"
    config.eval.update(batch_size=256, num_windows=16)
    if args.mini:
        _shrink(config, steps=1500 if args.audio_raw else 900)
        if args.audio_raw:  # Or some seeds don't begin to learn for a thousand steps.
            config.model.inputs.audio.update(mean=0.12, std=0.2)
    if args.sequential:
        recipes.read_one_after_the_other(config, rounds=2)
    if args.unrolled:
        recipes.unroll(config, num_parts=2 if args.mini else 4)  # Of 8 frames each.
    return config


def _shrink(config: ml_collections.ConfigDict, steps: int) -> None:
    """The mini: atari_clips, the video and audio of 16 games."""
    config.experiment += "_mini"
    config.data.dataset = "atari_clips"
    config.model.outputs.label.size = 16
    recipes.on_cpu(config, batch_size=16, learning_rate=2e-3, warmup_steps=50)
    config.model.encoder.update(num_latents=32, latent_channels=128, num_self_attends=2)
    third = steps // 3
    config.train.update(steps=steps, log_every=10, eval_every=third, checkpoint_every=third)
    config.eval.update(batch_size=16, num_windows=4)
