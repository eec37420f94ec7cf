import numpy as np
import rich.console

from experiments import evaluate
from perceiver_jax.training import evaluation


def test_the_least_recognised_classes_are_named_with_what_they_are_taken_for():
    # Class: true labels -> guesses. cup: 1 of 4 right, twice bowl, once vase; vase: 2 of 2.
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    guesses = np.array([0, 1, 1, 2, 2, 2, 1])
    names = ("cup", "bowl", "vase", "never")
    result = evaluation.Evaluation({}, np.eye(4)[guesses], labels, 7)
    console = rich.console.Console(record=True, width=100)
    evaluate.print_classes(console, result, names)
    text = console.export_text()
    assert "mean of the classes' accuracies: 0.0833" in text
    rows = [line.split() for line in text.splitlines() if "(" in line]
    cells = [[x for x in row if x != "│"] for row in rows]
    assert cells == [
        ["bowl", "0.0000", "2", "vase", "(2)"],
        ["vase", "0.0000", "1", "bowl", "(1)"],
        ["cup", "0.2500", "4", "bowl", "(2)"],
    ]
