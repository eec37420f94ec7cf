"""What users type, and what they are told when they mistype it."""

import importlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments import cli, predict, train
from perceiver_jax import config as config_lib
from perceiver_jax import config_file, recipes
from perceiver_jax import data as data_lib
from perceiver_jax.data.fields import label

CONFIGS = "experiments/configs"
IMAGENET = f"{CONFIGS}/imagenet.py"
POINTS, CLIPS = f"--config={CONFIGS}/modelnet40.py:mini", f"--config={CONFIGS}/audioset.py:mini"
SHAPES = "--config.model.inputs.points.position_encoding"

# What is typed, and a part of the one line that answers it.
WORDS = [
    ([], "The following arguments are required: --config. See --help."),
    (["--config"], "Argument --config: expected one argument. See --help."),
    ([f"--config={CONFIGS}"], f"Unknown config file '{CONFIGS}'."),
    ([f"--config={CONFIGS}/imagnet.py"], f"Did you mean '{IMAGENET}'? Known: "),
    ([f"--config={IMAGENET}:min"], "Unknown argument 'min'. Did you mean 'mini'? Known: "),
    ([f"--config={CONFIGS}/modelnet40.py:cpu,mini"], "cpu and mini contradict each other"),
    ([POINTS, "--wrkdir=x"], "Unknown flag '--wrkdir'. Did you mean '--workdir'? See --help."),
    ([POINTS, "--config.train.stps=1"], "Unknown key config.train.stps. Did you mean 'config.tr"),
    ([POINTS, "--config.train=5"], "config.train is a section; set one of its keys: "),
    ([POINTS, "--config.train.steps=many"], "got str 'many', expected int such as 900."),
    ([POINTS, "--config.train.steps=1e3"], "got float 1000.0, expected int such as"),
    (
        [POINTS, "--config.train.steps"],
        "--config.train.steps has no value; expected --config.train.steps=VALUE.",
    ),
    ([POINTS, f"{SHAPES}.max_resolution=('a',)"], "got tuple ('a',), expected tuple such as"),
    ([POINTS, "--config.model.encoder.layers=(1,2)"], "got tuple (1, 2), expected tuple such as"),
    ([POINTS, "--config.optimizer.learning_rate=nan"], "got str 'nan', expected float such as"),
    ([POINTS, "--config.seed=-1"], "config.seed is -1; expected at least 0. Change it."),
    ([POINTS, "--config.seed=99999999999"], "expected at least 0 and at most 2147483647."),
    ([POINTS, "--config.experiment=../x"], "expected a name that a directory may have, such as"),
]
NUMBERS = [
    (POINTS, "config.train.steps=0", "config.train.steps is 0; expected at least 1."),
    (POINTS, "config.train.log_every=-1", "config.train.log_every is -1; expected at least 0."),
    (POINTS, "config.train.ema_decay=1", "config.train.ema_decay is 1.0; expected at least 0"),
    (POINTS, "config.train.accumulate_steps=0", "config.train.accumulate_steps is 0; expected at "),
    (POINTS, "config.train.parallelism=pmapp", "parallelism 'pmapp'; expected one of ['pmap', "),
    (POINTS, "config.data.batch_size=-8", "config.data.batch_size is -8; expected at least 1."),
    (POINTS, "config.data.num_workers=100000", "expected at least 0 and at most 1024."),
    (POINTS, "config.data.fields.points.num_points=0", "config.data.fields.points.num_points is 0"),
    (CLIPS, "config.eval.num_windows=-3", "config.eval.num_windows is -3; expected at least 1."),
    (CLIPS, "config.eval.batch_size=0", "config.eval.batch_size is 0; expected a multiple of the "),
    (POINTS, "config.model.encoder.num_latents=0", "config.model.encoder.num_latents is 0; exp"),
    (POINTS, "config.model.encoder.layers=()", "config.model.encoder.layers is empty; expected at"),
    (POINTS, "config.model.encoder.dropout_rate=1", "expected at least 0 and less than 1."),
    (POINTS, f"{SHAPES[2:]}.num_bands=0", f"{SHAPES[2:]}.num_bands is 0; expected at least 1."),
    (POINTS, f"{SHAPES[2:]}.max_resolution=(3,0,3)", "max_resolution is (3, 0, 3); expected at l"),
    (POINTS, f"{SHAPES[2:]}.kind=fourrier", f"{SHAPES[2:]}.kind 'fourrier'; expected one of"),
    (POINTS, "config.optimizer.learning_rate=1e999", "learning_rate is inf; expected a finite num"),
    (POINTS, "config.optimizer.b1=1", "config.optimizer.b1 is 1.0; expected at least 0 and less "),
    (POINTS, "config.optimizer.eps=0", "config.optimizer.eps is 0.0; expected more than 0."),
    (POINTS, "config.optimizer.schedule.warmup_steps=-1", "warmup_steps is -1; expected "),
    (POINTS, "config.task.label_smoothing=1", "config.task.label_smoothing is 1.0; expected at l"),
    (CLIPS, "config.model.fusion.dropout_rates.video=2", "model.fusion.dropout_rates.video is 2.0"),
    (CLIPS, "config.data.fields.video.crop_area=(0.5,0.2)", "video.crop_area is (0.5, 0.2)"),
]


def parse(*argv):
    return cli.parse_command_line(cli.Parser("prog"), argv)


def load(*overrides, config=f"{IMAGENET}:mini"):
    return parse(f"--config={config}", *overrides)[1]


def test_absent_arguments_are_false_or_none():
    parsed = recipes.parse_arguments("", flag=False, number=(3, 5))
    assert vars(parsed) == {"flag": False, "number": None}


def test_arguments_take_the_type_of_their_kind():
    parsed = recipes.parse_arguments("number=5, flag", flag=False, number=(3, 5))
    assert vars(parsed) == {"flag": True, "number": 5}


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("flg", "Unknown argument 'flg'. Did you mean 'flag'\\? Known: flag, number=3, number=5"),
        ("number=4", "'number=4' is not possible; expected number=3 or number=5"),
        ("number", "'number' is not possible; expected number=3 or number=5"),
        ("flag=1", "'flag=1' is not possible; expected flag."),
        ("flag,flag", "'flag' is given twice"),
        ("flag,number=3", "flag and number contradict each other; give one"),
    ],
)
def test_wrong_arguments_are_explained(arg, message):
    with pytest.raises(config_lib.UserError, match=message):
        recipes.parse_arguments(arg, exclusive=[("flag", "number")], flag=False, number=(3, 5))


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("--config.train.steps=7", ("train", "steps"), 7),
        ("--config.optimizer.learning_rate=1", ("optimizer", "learning_rate"), 1.0),
        ("--config.model.encoder.remat=true", ("model", "encoder", "remat"), True),
        ("--config.data.data_dir=7", ("data", "data_dir"), "7"),
        ("--config.model.encoder.layers=['a','b']", ("model", "encoder", "layers"), ("a", "b")),
    ],
)
def test_overrides_keep_the_type_of_their_key(typed, key, value):
    found = load(typed)
    for name in key:
        found = found[name]
    assert found == value and type(found) is type(value)


def test_files_stand_among_flags_and_all_words_behind_two_dashes_are_files():
    parser = cli.Parser()
    parser.add_argument("--k", type=int)
    parser.add_argument("files", nargs="*")
    flags = cli.parse_with_files(parser, ["a", "--k=3", "b", "--", "-c", "--k=4", "--"])
    assert (flags.k, flags.files) == (3, ["a", "b", "-c", "--k=4", "--"])


_COMMANDS = [
    *("attention_maps", "check_pretrained", "convert", "describe", "evaluate", "export", "predict"),
    *("prepare_data", "serve", "show_data", "train", "benchmarks.checkpoints", "benchmarks.data"),
    *("benchmarks.dense", "benchmarks.exported", "benchmarks.growth", "benchmarks.miniature"),
    *("benchmarks.port", "benchmarks.released", "benchmarks.serve", "benchmarks.startup"),
    *("benchmarks.step", "benchmarks.stream"),
]


def _refused(capsys, name, *words):
    """The one line on stderr of a command that ends with 2."""
    with pytest.raises(SystemExit) as exit_:
        importlib.import_module(f"experiments.{name}").main(list(words))
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2
    return line


@pytest.mark.parametrize("name", _COMMANDS)
def test_a_misspelled_flag_of_any_command_is_named_in_one_line(capsys, name):
    words = ["text_files"] if name == "prepare_data" else []
    line = _refused(capsys, name, *words, "--nonesuch=1")
    assert line == "Error: Unknown flag '--nonesuch'. See --help."


def test_all_commands_are_tried():
    folder = pathlib.Path(cli.__file__).parent
    found = (path for path in folder.rglob("*.py") if "\ndef main(argv" in path.read_text())
    names = {".".join(path.relative_to(folder).with_suffix("").parts) for path in found}
    assert names == set(_COMMANDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "--workdr=x", "f.png"], "flag '--workdr'. Did you mean '--workdir'? See --"),
        (["predict", "--embedings", "x"], "flag '--embedings'. Did you mean '--embeddings'? See"),
        (["predict", "--out=x"], "Unknown flag '--out'. Did you mean '--output'? See --help."),
        (["predict", "--emb=x"], "Unknown flag '--emb'. Did you mean '--embeddings'? See --help."),
        (["predict", "f.png", "-x.png"], "Unknown flag '-x.png'. See --help."),
        (["predict", "--workdir=x", "f.png", "--k=a"], "--k: invalid int value: 'a'. See --help."),
        (["predict", "-5", "--", "--k"], "The following arguments are required: --workdir. See "),
        (["convert", "--format=prt"], "got 'prt'; expected one of ['port', 'safetensors']. Did yo"),
        (["prepare_data", "image_foldr"], "Did you mean 'image_folder'? See --help."),
        (["prepare_data", "text_files", "--sorce=x"], "'--sorce'. Did you mean '--source'? See --"),
        (["prepare_data", "--data_dir=x", "tfds"], "Got --data_dir before a command; expected the"),
        (["prepare_data"], "The following arguments are required: KIND. See --help."),
        (["evaluate", "--workdir=x", "y"], "Unrecognized arguments: y. See --help."),
    ],
)
def test_a_mistake_in_flags_is_one_line_that_says_what_was_meant(capsys, words, message):
    assert message in _refused(capsys, *words)


def test_help_is_shown_whatever_else_is_wrong(capsys):
    with pytest.raises(SystemExit) as exit_:
        predict.main(["--help", "--workdr=x"])
    assert exit_.value.code == 0 and "--embeddings" in capsys.readouterr().out


def test_a_value_may_follow_as_a_word_of_its_own():
    assert load("--config.train.steps", "7").train.steps == 7


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "--config.train.stps=5",
            "Unknown key config.train.stps. Did you mean 'config.train.steps'\\? "
            "Known in config.train: .*checkpoint_every, .*steps",
        ),
        ("--config.model.num_classes=5", "Did you mean 'config.model.outputs.label.size'"),
        (
            "--config.data.modalities.image.scale=5",
            "Did you mean 'config.data.fields.image.scale'",
        ),
        ("--config.steps=5", "Did you mean 'config.train.steps'"),
        ("--config.num_bands=5", "Did you mean 'config.model.inputs.image.position_encoding.num_b"),
        ("--config.train.steps=many", "got str 'many', expected int such as"),
        ("--config.train.steps=1.5", "got float 1.5, expected int such as"),
        ("--config.train=5", "config.train is a section; set one of its keys: .*checkpoint_every"),
        ("--config.seed.x=5", "Unknown key config.seed.x.* Known in config.seed: nothing"),
        ("--wrkdir=x", "Unknown flag '--wrkdir'. See --help."),
    ],
)
def test_wrong_overrides_are_explained(typed, message):
    with pytest.raises(config_lib.UserError, match=message):
        load(typed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file.py has no get_config"),
        ("import missing_module", "file.py, line 1: ModuleNotFoundError: No module named 'missing"),
        ("def get_config(arg):\n    return 1 / 0", "file.py, line 2: ZeroDivisionError"),
        ("def get_config():\n    pass", "TypeError: get_config.* Correct the file or its arg"),
        ("def get_config(arg):\n    return {'a': 1\n", "file.py, line 2: SyntaxError: .* Correct"),
        ("def get_config(arg):\n    return {}", "returned dict; expected a ml_collections"),
        (
            "import ml_collections\n"
            "def get_config(arg):\n    return ml_collections.ConfigDict({'seed': 0})",
            "no experiment and no data .* experiments/configs has examples",
        ),
        ("\x00\x01", "file.py: .* Correct the file"),
    ],
)
def test_errors_of_a_config_file_are_explained(tmp_path, text, message):
    path = tmp_path / "file.py"
    path.write_text(text)
    with pytest.raises(config_lib.UserError, match=message):
        load(config=str(path))


@pytest.mark.parametrize(
    ("argv", "message"),
    [*WORDS, *(([config, f"--{typed}"], message) for config, typed, message in NUMBERS)],
)
def test_mistakes_end_with_code_2_one_line_and_nothing_written(
    tmp_path, capsys, monkeypatch, argv, message
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(SystemExit) as exit_:
        train.main([*argv, f"--workdir={tmp_path / 'run'}"])
    shown = capsys.readouterr().err
    assert exit_.value.code == 2
    assert shown.startswith("Error: ") and message in shown and shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_mistyped_words_are_answered_before_jax_is_imported():
    program = f"""
import contextlib, sys
from experiments import train
for argv in {[argv for argv, _ in WORDS]}:
    with contextlib.suppress(SystemExit):
        train.main(argv)
print(sorted({{"jax", "tensorflow_datasets"}} & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.stdout.endswith("[]\n") and shown.stderr.count("Error: ") == len(WORDS)


def test_a_whole_number_in_a_pair_of_numbers_is_one():
    config = parse(CLIPS, "--config.data.fields.video.crop_area=(0.5,1)")[1]
    assert config.data.fields.video.crop_area == (0.5, 1.0)


def test_a_value_that_the_library_refuses_is_a_mistake_too(capsys):
    import perceiver_jax

    with pytest.raises(SystemExit) as exit_, cli.user_errors_end_the_program():
        perceiver_jax.make_layers(3, 8)
    assert exit_.value.code == 2
    assert "can't be spaced evenly" in capsys.readouterr().err


class _Heic(label.Label):
    """A field whose files need a package that is not installed."""

    def read(self, value, window, rng):
        raise config_lib.MissingPackageError("No HEIC.")


def test_a_mistake_that_a_worker_process_finds_is_one_here(capsys):
    x, labels = np.ones((8, 5)), np.arange(8)
    data = data_lib.from_arrays({"x": x}, labels, {"x": x}, labels, batch_size=2, num_workers=1)
    data.fields["label"] = _Heic(8, multi_label=False)
    with pytest.raises(SystemExit) as exit_, cli.user_errors_end_the_program():
        next(data.train_batches(seed=0))
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "Error: No HEIC.\n"


def test_a_place_that_can_not_be_written_is_told_in_one_line(capsys, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as exit_, cli.user_errors_end_the_program():
        (tmp_path / "file" / "run").mkdir()
    assert exit_.value.code == 2
    assert f"Cannot read or write {tmp_path / 'file' / 'run'}: Not a dir" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="whose owner can't write there, either")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("attention_maps", ["--workdir=none", "--output=/proc/x"]),
        ("evaluate", ["--workdir=/proc/x"]),
        ("predict", ["--workdir=none", "a.png", "--output=/proc/x/a.jsonl"]),
        ("predict", ["--workdir=none", "a.png", "--embeddings=/proc/x/a.npz"]),
        ("predict", ["--workdir=none", "a.png", "--output_dir=/proc/x"]),
        ("export", ["--workdir=none", "--output=/proc/x"]),
        ("export", ["--workdir=none", "--output=/proc/x", "--static_demo=none"]),
        ("convert", ["--source=none", "--output=/proc/x"]),
        ("show_data", [f"--config={IMAGENET}:mini", "--out=/proc/x"]),
        ("train", [f"--config={IMAGENET}:mini", "--workdir=/proc/x"]),
        ("prepare_data", ["text_files", "--source=none", "--data_dir=/proc/x"]),
        ("benchmarks.miniature", ["--workdir=/proc/x"]),
        ("benchmarks.growth", ["--json=/proc/x"]),
        ("benchmarks.port", ["--fixtures=/proc/x"]),
        ("benchmarks.serve", ["--json=/proc/x"]),
    ],
)
def test_a_place_that_can_not_be_written_is_refused_before_anything_takes_time(capsys, name, words):
    with pytest.raises(SystemExit) as exit_:
        importlib.import_module(f"experiments.{name}").main(words)
    shown = capsys.readouterr().err
    assert exit_.value.code == 2
    assert "but /proc can't be written to (" in shown and ".. " not in shown


def test_a_place_of_another_kind_and_one_that_is_taken_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for place, given, message in (
        ("file", {}, "which is a file; expected a folder"),
        ("", {"is_folder": False}, "which is a folder; expected a file"),
        ("", {"may_be_there": False}, "there already; expected a new --x. Choose another, or rem"),
        ("file/x", {"is_folder": False}, r"file can't be written to \(Not a directory\)"),
    ):
        with pytest.raises(config_lib.UserError, match=message):
            cli.check_place("x", tmp_path / place, **given)
    cli.check_place("x", tmp_path)
    cli.check_place("x", tmp_path / "new" / "folder", may_be_there=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("bug", [lambda: int("x"), lambda: [].index(1), lambda: (1).real()])
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises((ValueError, TypeError)), cli.user_errors_end_the_program():
        bug()


def test_another_config_takes_the_overrides_of_the_command_line():
    words, overrides = cli.split_overrides(
        ["--a", "--config.seed=3", "x", "--config.train.steps", "7"]
    )
    assert words == ["--a", "x"]
    config = config_file.load_config("experiments/configs/imagenet.py:mini", overrides)
    assert (config.seed, config.train.steps) == (3, 7)
