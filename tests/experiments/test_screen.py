"""What a person sees of a command that goes through many examples."""

import pathlib

from experiments import screen
from perceiver_jax import config, predictions


def test_the_rate_counts_what_was_computed():
    shown = screen.Screen([], None, 1, pathlib.Path("x.csv"))
    shown.show(predictions.Predicted("a", {}), {})
    for _ in range(9):
        shown.show(predictions.Predicted("b", None, config.UserError("broken")), {})
    assert "a second" not in shown.summary() and "9 without an answer" in shown.summary()
