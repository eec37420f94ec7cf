"""atari_clips: games with audio, a small stand-in for AudioSet with the same features.

A random player plays 16 Atari 2600 games in the emulator that `ale-py` brings, ROMs included
(GPL-2.0; an optional dependency, and nothing of it is copied here). Clips are like AudioSet's: JPEG
frames at 25 a second and mono audio at 48 kHz, exactly in step. The classes are the games.
"""

from collections.abc import Iterator
import dataclasses
import importlib.util

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax import config
from perceiver_jax.data.builders import base, isolated
from perceiver_jax.data.builders.atari_clips import play

GAMES = tuple(
    "air_raid alien assault beam_rider berzerk centipede chopper_command defender demon_attack "
    "freeway frogger riverraid seaquest space_invaders time_pilot up_n_down".split()
)


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """How much is played.

    Attributes:
        num_games: the first so many of `GAMES`.
        episodes: number of episodes of a game in each split.
        clips: number of clips cut from an episode, one after the other.
    """

    num_games: int = len(GAMES)
    episodes: dict[str, int] = dataclasses.field(default_factory=dict)
    clips: int = 1

    @property
    def sizes(self) -> dict[str, int]:
        """Number of clips of each split."""
        return {
            split: self.num_games * episodes * self.clips
            for split, episodes in self.episodes.items()
        }


FULL = Config(name="full", episodes={"train": 8, "test": 2}, clips=5)
TINY = Config(name="tiny", num_games=2, episodes={"train": 2, "test": 1}, clips=2)


class AtariClips(base.EmbeddedBuilder):
    """An episode has a seed of its own and lies in one split, as do all its clips."""

    BUILDER_CONFIGS = [FULL, TINY]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return self.builder_config.sizes

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips of 4 s of 16 Atari 2600 games, played at random, with audio.",
            features=tfds.features.FeaturesDict(
                {
                    "clip_id": tfds.features.Text(),
                    "video": tfds.features.Sequence(tfds.features.Image(encoding_format="jpeg")),
                    "audio": tfds.features.Tensor(shape=(), dtype=np.object_),  # A FLAC file.
                    "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=GAMES)),
                }
            ),
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        if importlib.util.find_spec("ale_py") is None:
            raise config.MissingPackageError(
                "Building atari_clips needs the package ale-py, which is not installed; install it "
                "with: pip install perceiver-haiku[atari]"
            )
        episodes = self._episodes(split)
        tasks = [(game, seed, self.builder_config.clips) for game, seed in episodes]
        # In processes: the emulator holds Python's lock.
        num_processes = min(len(tasks), isolated.num_cores())
        for (game, seed, _), clips in zip(
            tasks, isolated.run_all(play.episode, tasks, num_processes), strict=True
        ):
            if isinstance(clips, isolated.Ended):
                raise RuntimeError(f"Playing {game} with seed {seed} {clips.cause}: {clips.detail}")
            for i, clip in enumerate(clips):
                clip_id = f"{game}_{seed}_{i}"
                yield clip_id, {"clip_id": clip_id, "labels": [game], **clip}

    def _episodes(self, split: str) -> list[tuple[str, int]]:
        """Returns the game and the seed of each episode; no seed occurs twice in any split.

        Seeds are played from and are in the clips' names: other ones make another data set.
        """
        episodes = self.builder_config.episodes
        first = 0 if split == "train" else episodes["train"]
        return [
            (game, 1_000 * number + episode)
            for number, game in enumerate(GAMES[: self.builder_config.num_games])
            for episode in range(first, first + episodes[split])
        ]
