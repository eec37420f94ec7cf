"""What classification makes of outputs: the choice of metrics, and what is rendered."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from perceiver_jax import tasks
from perceiver_jax.data.fields import label, number


def build(num_classes=4, multi_label=False, **keys):
    keys = {"kind": "classification", "target": "label"} | keys
    return tasks.build_task(keys, {"label": label.Label(num_classes, multi_label)})


def rendered(task, rows, names):
    """What is written, by name, and the text of what is printed."""
    console = rich.console.Console(record=True, width=100)
    files = {}
    for name, content in task.render(rows, {"label": names}, None):
        if name:
            files[name] = content
        else:
            console.print(content)
    return files, console.export_text()


def test_the_least_recognised_classes_are_named_with_what_they_are_taken_for():
    # Class: true labels -> guesses. cup: 1 of 4 right, twice bowl, once vase; vase: 2 of 2.
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    guesses = np.array([0, 1, 1, 2, 2, 2, 1])
    names = ("cup", "bowl", "vase", "never")
    files, text = rendered(build(), {"scores": np.eye(4)[guesses], "target": labels}, names)
    assert "mean of the classes' accuracies: 0.0833" in text
    rows = [line.split() for line in text.splitlines() if "(" in line]
    cells = [[x for x in row if x != "│"] for row in rows]
    assert cells == [
        ["bowl", "0.0000", "2", "vase", "(2)"],
        ["vase", "0.0000", "1", "bowl", "(1)"],
        ["cup", "0.2500", "4", "bowl", "(2)"],
    ]
    per_class = json.loads(files["per_class.json"])
    assert per_class["cup"] == {"accuracy": 0.25, "examples": 4}
    assert per_class["never"] == {"accuracy": None, "examples": 0}
    assert {"confusion.png", "per_class.png"} < files.keys()


def test_several_labels_are_rendered_by_average_precision():
    labels = np.array([[1.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    scores = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.6], [0.7, 0.1, 0.5]])
    task = build(3, multi_label=True, loss="sigmoid")
    files, text = rendered(task, {"scores": scores, "target": labels}, "abc")
    per_class = json.loads(files["per_class.json"])
    assert per_class["a"] == {"average_precision": 1.0, "examples": 2}
    assert per_class["c"] == {"average_precision": pytest.approx(1 / 3), "examples": 1}
    assert not text


@pytest.mark.parametrize(
    ("num_classes", "multi_label", "main", "shown"),
    [
        (5, False, "top1", ["loss", "top1", "mAP"]),
        (7, False, "top1", ["loss", "top1", "top5", "mAP"]),
        (5, True, "mAP", ["loss", "top1", "mAP", "AUC", "d_prime"]),
    ],
)
def test_the_metrics_are_those_that_suit_the_classes(num_classes, multi_label, main, shown):
    task = build(num_classes, multi_label)
    assert (task.main_metric, list(task.shown), task.lower_is_better) == (main, shown, False)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loss": "sigmoid"}, "config.task.loss is 'sigmoid'; 'label' is one class an example"),
        ({"loss": "hinge"}, r"'hinge'; expected one of \['softmax', 'sigmoid'\]"),
        (
            {"label_smoothing": 1.0},
            "config.task.label_smoothing is 1.0; .*at least 0 and less than 1",
        ),
        (
            {"class_weights": (1.0, 2.0)},
            "class_weights has 2 numbers.*one for each of the 4 classes",
        ),
        ({"class_weights": (1, 1, 1, -1)}, "config.task.class_weights is .*at least 0"),
        ({"target": "lable"}, "target is 'lable'; expected one of the data set's targets"),
        ({"target": ["lable"]}, "config.task.target is .'lable'.; expected a text in quotes"),
        ({"kind": "clasification"}, "Did you mean 'classification'"),
        ({"smoothing": 0.1}, "Unknown key config.task.smoothing.*mean 'label_smoothing'"),
    ],
)
def test_a_wrong_section_says_what_is_right(keys, message):
    with pytest.raises(ValueError, match=message):
        build(**keys)


def test_weights_are_those_of_the_true_class_of_mixed_labels_in_proportion():
    logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    labels = np.array([2, 0, 3], np.int32)
    weights = (0.5, 1.0, 3.0, 0.0)

    def losses(logits, labels, **keys):
        batch = {"label": jnp.asarray(labels)}
        return build(**keys).loss({"label": jnp.asarray(logits)}, batch)[0]

    plain, weighted = losses(logits, labels), losses(logits, labels, class_weights=weights)
    np.testing.assert_allclose(weighted, np.array([3.0, 0.5, 0.0]) * plain, rtol=1e-6)
    mixed = np.array([[0.25, 0, 0.75, 0]], np.float32)
    plain = losses(logits[:1], mixed)
    weighted = losses(logits[:1], mixed, class_weights=weights)
    np.testing.assert_allclose(weighted, 2.375 * plain, rtol=1e-6)


def test_the_loss_of_a_split_is_a_weighted_mean_whatever_its_classes_are():
    logits = np.zeros((4, 4), np.float32)
    for labels in ([0, 0, 0, 0], [0, 1, 2, 2], [3, 3, 3, 3]):
        task = build(class_weights=(0.5, 1.0, 3.0, 0.0))
        rows = task.rows({"label": jnp.asarray(logits)}, {"label": jnp.asarray(labels)})
        loss = task.metrics({name: np.asarray(x) for name, x in rows.items()})["loss"]
        assert loss == pytest.approx(0.0 if labels[0] == 3 else np.log(4))


def test_numbers_are_no_classes():
    with pytest.raises(ValueError, match="'size', which has numbers and no classes"):
        tasks.build_task({"kind": "classification", "target": "size"}, {"size": number.Number(1)})
