"""What a config holds is checked where it is used, and named by its path."""

import dataclasses
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

from perceiver_jax import config, config_file
from perceiver_jax.data import errors, raw


@dataclasses.dataclass
class Thing:
    size: int
    scale: float = 1.0
    round: bool = False
    unit: str = ""
    name: str | None = None

    def __post_init__(self):
        config.check(vars(self), size=config.AT_LEAST_ONE, scale=config.POSITIVE)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"siez": 3}, r"Unknown key a.b.siez; expected one of .*. Did you mean 'size'"),
        ({"q": 3}, r"Unknown key a.b.q; .* Choose one of these"),
        ({"name": "x", "size": 3}, "Unknown key a.b.name"),
        ({"scale": 2.0}, "Missing key a.b.size; expected .* got .* Set it"),
        ({"size": 0}, "^a.b.size is 0; expected at least 1. Change it"),
        ({"size": (3, 5)}, r"^a.b.size is \(3, 5\); expected a single number"),
        ({"size": {}}, "^a.b.size is {}; expected a single number"),
        ({"size": 3, "round": "no"}, "^a.b.round is 'no'; expected True or False"),
        ({"size": 3, "unit": 7}, "^a.b.unit is 7; expected a text in quotes"),
        (7, r"a.b is 7; expected a section of \['round', 'scale', 'size', 'unit'\]"),
    ],
)
def test_a_section_that_its_constructor_does_not_take_is_refused_by_path(keys, message):
    with pytest.raises(config.UserError, match=message):
        config.build(Thing, keys, "a.b")


def test_a_section_is_built_by_the_constructor_that_its_kind_names():
    assert config.build_from_table({"x": Thing}, {"kind": "x", "size": 3}, "a") == Thing(3)


@pytest.mark.parametrize("keys", [{"kind": "thign"}, {}, 7])
def test_an_unknown_or_missing_kind_is_refused_by_path(keys):
    with pytest.raises(config.UserError, match="^(Unknown a.kind .* one of|a is 7; .*) .'thing'"):
        config.build_from_table({"thing": Thing}, keys, "a")


def test_a_key_of_another_kind_is_refused_with_the_kind_as_the_cause():
    table = {"thing": Thing, "word": lambda text: text}
    message = (
        r"^Unknown key a.size: a.kind is 'word', which takes \['text'\]; 'size' is for 'thing'. "
        "Set another kind"
    )
    with pytest.raises(config.UserError, match=message):
        config.build_from_table(table, {"kind": "word", "text": "x", "size": 3}, "a")


@pytest.mark.parametrize(
    ("inner", "message"),
    [({"siez": 3}, "^Unknown key a.b.siez"), ({}, "^Missing key a.b.size"), (7, "^a.b is 7")],
)
def test_a_section_in_a_section_is_refused_by_its_whole_path(inner, message):
    def build(b):
        return config.build(Thing, b, "b")

    with pytest.raises(config.UserError, match=message):
        config.build(build, {"b": inner}, "a")


def test_an_error_that_is_not_of_a_key_is_as_it_was_raised():
    def refuse(size):
        raise config.UserError("The size of the disk is too small.")

    with pytest.raises(config.UserError, match="^The size of"):
        config.build(refuse, {"size": 3}, "a")


@pytest.mark.parametrize(
    ("allowed", "value", "message"),
    [
        (config.COUNT, -1, "expected at least 0. Change it"),
        (config.COUNT, 2**31, "expected at least 0 and at most 2147483647"),
        (config.COUNT, 1.0, "is 1.0; expected a whole number, at least 0"),
        (config.COUNT, "7", "is '7'; expected a whole number, at least 0"),
        (config.COUNT, True, "is True; expected a whole number"),
        (config.COUNT, None, "is None; expected a whole number"),
        (config.POSITIVE, 0, "expected more than 0. Change it"),
        (config.POSITIVE, math.inf, "is inf; expected a finite number, more than 0"),
        (config.NUMBER, math.nan, "is nan; expected a finite number, any number"),
        (config.FRACTION, 1.5, "expected at least 0 and at most 1"),
        (config.BELOW_ONE, 1, "expected at least 0 and less than 1"),
        (config.NUMBER, -1e39, r"is -1e\+39; expected a number that float32 can hold"),
        (config.POSITIVE, 1e-300, "is 1e-300; expected a number that float32 can hold"),
        (config.AT_LEAST_ONE, (3, 0), r"x is \(3, 0\); expected at least 1"),
        (config.AT_LEAST_ONE, (), "x is empty; expected at least one value. Add it"),
        (config.BELOW_ONE, {"video": 2}, "x.video is 2; expected at least 0 and less than 1"),
    ],
)
def test_numbers_out_of_range_are_refused(allowed, value, message):
    with pytest.raises(config.UserError, match=message):
        config.check({"x": value}, x=allowed)


@pytest.mark.parametrize("value", [0, 1, np.float32(0.5), (0.1, 1), {"a": 0.3}])
def test_numbers_in_range_are_taken(value):
    config.check({"x": value}, x=config.FRACTION)


@pytest.mark.parametrize("value", [(0.5,), (0.5, 0.2), 0.5])
def test_what_is_no_pair_in_order_is_refused(value):
    with pytest.raises(config.UserError, match="x is .*; expected two numbers, the lesser one fi"):
        config.check_pairs({"x": value}, x=config.FRACTION)


@pytest.mark.parametrize("kind", [config.MissingFileError, config.MissingPackageError])
def test_a_mistake_keeps_kind_and_message_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind("Install it.")))
    assert isinstance(error, config.UserError) and str(error) == "Install it."


SAID = ["it failed.", "it\nfailed", "it failed...\n"]


@pytest.mark.parametrize("said", SAID)
def test_a_sentence_goes_on_behind_what_another_program_says(said, tmp_path):
    (tmp_path / "config.py").write_text(f"def get_config(arg):\n    raise OSError({said!r})")
    with pytest.raises(config.UserError, match=r"line 2: OSError: it failed\. Correct the file"):
        config_file.load_config(f"{tmp_path}/config.py")


@pytest.mark.parametrize("said", SAID)
def test_a_sentence_goes_on_behind_what_a_decoder_says(said):
    with pytest.raises(config.UserError, match=r"a\.png: damaged: it failed\. Expected an image"):
        with raw.refusing("a.png", "image"):
            raise errors.BadDataError("damaged", said)


def test_it_imports_nothing_that_takes_time():
    program = "import sys, perceiver_jax.config; print({'jax', 'numpy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.stdout == "set()\n"
