"""What the trainer asks of a task, and all that it knows of one; `perceiver_jax/tasks` has some."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float
import numpy as np

Arrays = Mapping[str, Array]
Rows = Mapping[str, np.ndarray]
# count -> the batch of so many examples, and what `predict` makes of their outputs.
Examples = Callable[[int], tuple[Rows, Rows]]


@runtime_checkable
class Metric(Protocol):
    """How a metric is shown.

    Attributes:
      label: Its name on the screen and in images.
      panel: The part of `curves.png` where it is drawn, with `label` and `limits` of its axis; None
        leaves it out.
      style: Of its line there, in matplotlib's letters.
    """

    label: str
    panel: Any
    style: str


@runtime_checkable
class Task(Protocol):
    """What the outputs of a model and the fields of a batch mean to each other.

    Attributes:
      outputs: By name of each output that is trained, how many numbers it has to have: of an
        example, or of each place where the inputs say how many places there are.
      description: What is predicted, for people.
      main_metric: Name of the metric that says which of two models is better.
      lower_is_better: Whether the lower one is.
      shown: The metrics that are shown, in their order, by name; the files have all.
    """

    outputs: Mapping[str, int]
    description: str
    main_metric: str
    lower_is_better: bool
    shown: Mapping[str, Metric]

    def loss(
        self, outputs: Arrays, batch: Arrays
    ) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
        """Returns the loss of each example, and by name what else training reports of it."""

    def rows(self, outputs: Arrays, batch: Arrays) -> dict[str, Array]:
        """Returns the little that evaluation keeps of each example, `loss` [B] among it.

        It runs on the devices. Over the windows of an example numbers are averaged.
        """

    def metrics(self, rows: Rows) -> dict[str, float]:
        """Returns the metrics of a whole split, one row an example; on the host."""

    def predict(self, outputs: Arrays) -> dict[str, Array]:
        """Returns what a person wants of outputs, by name: probabilities, numbers with units."""

    def render(
        self, rows: Rows, names: Mapping[str, Sequence[str]], examples: Examples
    ) -> Iterator[tuple[str, Any]]:
        """Yields what a person wants to see of an evaluation.

        Args:
          rows: Of the whole split.
          names: Of the classes, by name of the label.
          examples: Gives the first so many examples of the split.

        Yields:
          Names of files and what goes there, text or a figure of matplotlib; and without a name
          what is printed, anything that `rich` prints.
        """
