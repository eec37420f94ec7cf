"""Real runs, really killed: resuming gives the bits of a run that was left alone.

`make test-faults` kills 50 times at random and reports what that costs.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

KILLS = int(os.environ.get("PERCEIVER_RANDOM_KILLS", "0"))
STEPS, EVAL_EVERY, SAVE_EVERY = 24, 6, 2
TIMEOUT = 300  # Seconds; far more than a run takes on a busy machine.
COMMAND = (
    *("-m", "experiments.train", "--config=experiments/configs/modelnet40.py:mini"),
    "--config.model.encoder.layers=('cross_attend_0','latent_transformer_0')",
    "--config.model.encoder.num_self_attends=1",
    "--config.model.encoder.num_latents=5",
    "--config.model.encoder.latent_channels=24",
    "--config.model.encoder.dropout_rate=0.1",
    "--config.data.batch_size=7",
    "--config.data.fields.points.num_points=17",
    "--config.optimizer.schedule.warmup_steps=3",
    "--config.train.ema_decay=0.9",
    f"--config.train.steps={STEPS}",
    f"--config.train.eval_every={EVAL_EVERY}",
    f"--config.train.checkpoint_every={SAVE_EVERY}",
    "--config.train.log_every=1",
)
pytestmark = pytest.mark.xdist_group("faults")


class Run:
    """A training process; what it prints goes to a file.

    Args:
      root: has the workdirs, and what all runs share: the data set, to be built by the first, and
        compiled programs.
      name: of the workdir.
    """

    def __init__(self, root, name):
        self.workdir, self.data_dir = root / name, root / "data"
        self.begin = time.perf_counter()
        self._log = root / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *COMMAND, f"--workdir={self.workdir}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {
                    "TFDS_DATA_DIR": str(self.data_dir),
                    "XLA_FLAGS": "",  # One device.
                    "JAX_ENABLE_COMPILATION_CACHE": "true",
                    "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
                },
            )

    @property
    def output(self):
        return self._log.read_text(errors="replace")

    @property
    def metrics(self):
        path = self.workdir / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_until(self, condition):
        """Waits until `condition(self)`; fails if the process ends before."""
        while not condition(self):
            assert self.process.poll() is None, f"It ended before that:\n{self.output}"
            assert time.perf_counter() - self.begin < TIMEOUT
            time.sleep(0.001)


def is_preparing_data(run):
    return any(run.data_dir.glob("furniture11/incomplete*"))


def is_compiling(run):
    return "compiling the training step" in run.output


def is_evaluating(run):
    lines = run.metrics
    return bool(lines) and lines[-1]["split"] == "train" and not lines[-1]["step"] % EVAL_EVERY


def is_saving(run):
    return any((run.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def is_training(run):
    return bool(re.search(r"^train +\d+/", run.output, re.MULTILINE))


def is_ending(run):
    return "again ends at once" in run.output


def history(workdir):
    """Lines of metrics.jsonl without the speed, which never repeats."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {name: x for name, x in json.loads(line).items() if name != "examples_per_second"}
        for line in lines
    ]


def final_checkpoint(workdir):
    """The arrays of the last checkpoint, and the rest of it: data order, random state, best."""
    path = workdir / "checkpoints" / str(STEPS)
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(path / "state")
    rest = json.loads((path / "metadata" / "metadata").read_text())
    return state, rest


def assert_identical(workdir, other):
    assert history(workdir) == history(other)
    (state, rest), (other_state, other_rest) = map(final_checkpoint, (workdir, other))
    assert set(state) == {"step", "params", "opt_state", "ema_params"}
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
    assert rest == other_rest


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def stopped(root):
    """A run that was stopped five times and went on; exit codes and what it printed each time."""
    codes, outputs = [], []

    def stop(condition, *signals):
        run = Run(root, "stopped")
        for number in signals:
            run.wait_until(condition)
            run.process.send_signal(number)
            condition = is_ending
        codes.append(run.process.wait(TIMEOUT))
        outputs.append(run.output)

    stop(is_preparing_data, signal.SIGKILL)
    stop(is_compiling, signal.SIGTERM, signal.SIGTERM)
    stop(is_evaluating, signal.SIGKILL)
    stop(is_saving, signal.SIGKILL)
    stop(is_training, signal.SIGTERM)
    stop(None)
    return root / "stopped", codes, outputs


@pytest.fixture(scope="module")
def uninterrupted(root, stopped):
    """Of a run that nothing interrupted; after the other one, whose compiled programs it uses."""
    run = Run(root, "uninterrupted")
    assert run.process.wait(TIMEOUT) == 0, run.output
    return run.workdir, time.perf_counter() - run.begin


def test_killed_run_ends_with_the_bits_of_an_uninterrupted_one(stopped, uninterrupted):
    assert_identical(stopped[0], uninterrupted[0])


def test_exit_codes_say_how_a_run_ended(stopped):
    # As a shell gives them: the second signal may come when the first has all but ended the run.
    codes = [code if code >= 0 else 128 - code for code in stopped[1]]
    assert codes == [137, 143, 137, 137, 75, 0]


def test_preempted_run_says_how_to_resume(stopped):
    workdir, _, outputs = stopped
    (step,) = re.findall(rf"Saved step (\d+) in {workdir}. The same command resumes.", outputs[4])
    assert f"resuming from step {step}\n" in outputs[5]


def test_complete_run_has_all_its_lines_and_checkpoints(stopped):
    steps = [line["step"] for line in history(stopped[0]) if line["split"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    names = sorted(path.name for path in (stopped[0] / "checkpoints").iterdir())
    assert names == [str(STEPS - 4), str(STEPS - 2), str(STEPS)]


@pytest.mark.skipif(not KILLS, reason="takes minutes: make test-faults")
def test_runs_killed_at_random_end_with_the_bits_of_an_uninterrupted_one(root, uninterrupted):
    workdir, duration = uninterrupted
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    kills, chains, seconds, repeated = 0, 0, 0.0, 0
    while kills < KILLS:
        chains += 1
        code, reached = None, 0
        while code != 0:
            run = Run(root, f"random{chains}")
            end = run.begin + draw.uniform(0.2, 1.1) * duration
            while run.process.poll() is None and time.perf_counter() < end:
                time.sleep(0.001)
            kills += run.process.poll() is None
            run.process.kill()
            code = run.process.wait()
            assert code in (0, -signal.SIGKILL), run.output
            seconds += time.perf_counter() - run.begin
            going_on = re.search(r"resuming from step (\d+)", run.output)
            if reached and (going_on or code == 0):
                repeated += max(reached - int(going_on[1] if going_on else STEPS), 0)
                reached = 0
            reached = max([reached, *(line["step"] for line in run.metrics)])
        assert_identical(run.workdir, workdir)
    lost = (seconds - chains * duration) / kills
    print(
        f"\n{kills} kills in {chains} runs, all bit-identical (seed {seed}); an uninterrupted run "
        f"takes {duration:.1f} s; lost per kill {lost:.1f} s and {repeated / kills:.1f} steps"
    )
