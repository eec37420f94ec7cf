"""Plays episodes at random and cuts them into clips, in processes that import this alone."""

import io

import numpy as np
import PIL.Image
import soundfile
import soxr

CLIP_SECONDS = 4
FRAME_RATE = 25
SAMPLE_RATE = 48_000

_TICK_RATE = 60  # Frames and pieces of audio that the emulator makes a second.
_TICK_SAMPLES = 512
_TICKS = CLIP_SECONDS * _TICK_RATE
_SHOWN_TICKS = frozenset(i * _TICK_RATE // FRAME_RATE for i in range(CLIP_SECONDS * FRAME_RATE))
_SILENCE = 128  # Audio is unsigned bytes.
_STICKINESS = 0.25  # Probability that the emulator repeats the last action.
_TICKS_PER_ACTION = 8
_FIRST_TICK = (60, 600)  # Range of where the first clip starts.
_SHRINK = 2  # Of the emulator's 210 (some games 250) x 160 pixels; plenty for crops of 64 x 64.
_JPEG_QUALITY = 80


def episode(task: tuple[str, int, int]) -> list[dict]:
    """Returns the `video` (JPEG files) and `audio` (a FLAC file) of clips that follow each other.

    Args:
        task: name of a ROM; seed, which decides the actions and the emulator's randomness; number
            of clips.
    """
    game, seed, num_clips = task
    player = _Player(game, seed)
    for _ in range(player.rng.integers(*_FIRST_TICK)):
        player.tick()
    return [_record(player) for _ in range(num_clips)]


class _Player:
    """A game and someone who presses a random button every now and then."""

    def __init__(self, game: str, seed: int):
        import ale_py  # GPL-2.0 and optional: imported here only.
        import ale_py.roms

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.emulator = ale_py.ALEInterface()
        self.emulator.setInt("random_seed", seed)
        self.emulator.setFloat("repeat_action_probability", _STICKINESS)
        self.emulator.setBool("sound_obs", True)
        self.emulator.loadROM(ale_py.roms.get_rom_path(game))
        self.rng = np.random.default_rng(seed)
        self._actions = self.emulator.getMinimalActionSet()
        self._ticks = 0

    def tick(self) -> None:
        if self._ticks % _TICKS_PER_ACTION == 0:
            self._action = self._actions[self.rng.integers(len(self._actions))]
        self._ticks += 1
        self.emulator.act(self._action)
        if self.emulator.game_over():
            self.emulator.reset_game()


def _record(player: _Player) -> dict:
    frames = []
    audio = np.empty((_TICKS, _TICK_SAMPLES), np.float32)
    for tick in range(_TICKS):
        player.tick()
        audio[tick] = player.emulator.getAudio()
        if tick in _SHOWN_TICKS:
            frames.append(_encode_frame(player.emulator.getScreenRGB()))
    return {"video": frames, "audio": _encode_audio((audio.ravel() - _SILENCE) / _SILENCE)}


def _encode_frame(screen: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(screen).reduce(_SHRINK).save(buffer, format="jpeg", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _encode_audio(audio: np.ndarray) -> bytes:
    audio = soxr.resample(audio, _TICK_RATE * _TICK_SAMPLES, SAMPLE_RATE)
    # Twelve bits hold all of the emulator's eight, and take two thirds of the space of sixteen.
    audio = np.round(np.clip(audio, -1, 1) * 2**11) / 2**11
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
