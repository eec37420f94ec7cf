"""AudioSet: sounds and pictures of ten-second clips, 527 labels (section 4.2, table 3).

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

from experiments import arguments
import perceiver_jax

TRAIN_EXAMPLES = 1_700_000
MODES = {
    "audio_raw": ("audio",),
    "audio_mel": ("mel",),
    "video": ("video",),
    "av_mel": ("mel", "video"),
    "av_mel_tuned": ("mel", "video"),
}
MINI_STEPS = {
    "av_raw": 900,
    "audio_raw": 1500,
    "audio_mel": 900,
    "video": 900,
    "av_mel": 900,
    "av_mel_tuned": 900,
}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe; `arg` as above."""
    args = arguments.parse_arguments(
        arg, mini=False, exclusive=[tuple(MODES)], **dict.fromkeys(MODES, False)
    )
    mode = next((mode for mode in MODES if getattr(args, mode)), "av_raw")
    kinds = MODES.get(mode, ("audio", "video"))
    config = ml_collections.ConfigDict({"experiment": f"audioset_{mode}", "seed": 0})

    # Both sections below know a modality by its name: `audio` is raw or mel, and `video`.
    num_samples = 61_440  # 1.28 s at 48 kHz, as long as 32 frames.
    masked = mode != "av_mel_tuned"
    data = {
        "audio": {"kind": "audio", "num_samples": num_samples, "sample_rate": 48_000},
        "mel": {
            "kind": "mel",
            "num_samples": num_samples,
            "sample_rate": 48_000,
            "num_bins": 80,
            "hop": 1024,  # 60 frames.
            "window": 2048,
            "time_masks": 2 if masked else 0,  # SpecAugment.
            "time_mask_width": 8,
            "frequency_masks": 2 if masked else 0,
            "frequency_mask_width": 10,
        },
        "video": {
            "kind": "video",
            "num_frames": 32,
            "image_size": 224,
            "frames_per_second": 25.0,
            "crop_area": (0.08, 1.0),
            "crop_aspect": (3 / 4, 4 / 3),
            "flip": True,
            "brightness": 0.125,
            "contrast": 0.5,
            "saturation": 0.5,
        },
    }
    config.data = {
        "dataset": "audioset",
        "data_dir": "",  # TFDS's own default, ~/tensorflow_datasets.
        "train_split": "train",
        "test_split": "test",
        "batch_size": 1024,
        "num_workers": 16,
        "feature_names": "",  # Such as "audio=sound,label=tags", if not plain from types.
        "max_bad_records": 1000,  # Left out because they can't be decoded, before the run ends.
        "mixup_alpha": 0.0,  # Off.
        "cutmix_alpha": 0.0,  # Off.
        "modalities": {_name(kind): data[kind] for kind in kinds},
    }

    inputs = {
        "audio": {
            "kind": "audio",
            "patch_size": 128,  # 480 inputs.
            "position_encoding": {"kind": "fourier", "num_bands": 64, "max_resolution": (480,)},
        },
        "mel": {
            "kind": "mel",
            "patch_size": (1, 1),  # 4,800 inputs.
            "position_encoding": {"kind": "fourier", "num_bands": 64, "max_resolution": (60, 80)},
        },
        "video": {
            "kind": "video",
            "patch_size": (2, 8, 8),  # 12,544 inputs of 384 values.
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "position_encoding": {
                "kind": "fourier",
                "num_bands": 16,
                "max_resolution": (16, 28, 28),
            },
        },
    }
    config.model = {
        "num_classes": 527,
        "inputs": {_name(kind): inputs[kind] for kind in kinds},
        "encoder": {
            "num_latents": 512,
            "latent_channels": 512,
            "layers": perceiver_jax.make_layers(
                num_cross_attends=2, num_latent_transformers=2, sharing="none"
            ),
            "num_self_attends": 8,
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
    if len(kinds) > 1:
        # Without video dropout 39.7 (raw) and 39.9 (mel) instead of 43.5 and 43.2.
        dropout_rates = {"video": 0.3, "audio": 0.1 if mode == "av_mel_tuned" else 0.0}
        config.model.fusion = {"modality_channels": 4, "dropout_rates": dropout_rates}

    steps_per_epoch = TRAIN_EXAMPLES // config.data.batch_size
    config.train = {
        "steps": 100 * steps_per_epoch,
        "loss": "sigmoid",
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
        "schedule": {"name": "step", "boundaries": (0.70, 0.85, 0.95), "factor": 0.1},
        "weight_decay": 0.1,
        "max_grad_norm": 10.0,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-6,
    }
    config.eval = {"batch_size": 256, "num_windows": 16}
    if args.mini:
        _shrink(config, MINI_STEPS[mode])
    return config


def _name(kind: str) -> str:
    return "video" if kind == "video" else "audio"


def _shrink(config: ml_collections.ConfigDict, steps: int) -> None:
    """The mini: atari_clips, the pictures and sounds of 16 games.

    Top-1 within 5 minutes on two cores: 0.98 audio and video, 0.80 mel, 0.70 raw audio, 0.97 video.
    """
    config.experiment += "_mini"
    config.data.update(dataset="atari_clips", batch_size=16, num_workers=0)
    config.model.num_classes = 16
    config.model.dtype = "float32"
    if "video" in config.data.modalities:
        # Half of the frames of the same 1.28 s, and 288 inputs. Not mirrored: games have a left.
        config.data.modalities.video.update(
            num_frames=16, frames_per_second=12.5, image_size=48, crop_area=(0.5, 1.0), flip=False
        )
        config.model.inputs.video.position_encoding.update(num_bands=8, max_resolution=(8, 6, 6))
    if "audio" in config.model.inputs:
        audio = config.model.inputs.audio
        audio.position_encoding.num_bands = 16 if audio.kind == "mel" else 32
    config.model.encoder.update(num_latents=32, latent_channels=128, num_self_attends=2)
    config.model.encoder.scan = False  # Compiles longer, but steps of so small layers are faster.
    config.optimizer.update(name="adam", learning_rate=2e-3, eps=1e-8)
    config.optimizer.schedule = {"name": "cosine", "warmup_steps": 50}
    config.train.update(
        steps=steps, log_every=10, eval_every=steps // 3, checkpoint_every=steps // 3
    )
    config.eval.update(batch_size=16, num_windows=4)
