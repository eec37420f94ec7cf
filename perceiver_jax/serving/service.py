"""From the body of a request to its answer: what the routes of a server call."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent import futures
import contextlib
import functools
import time
from typing import Any

import numpy as np

from perceiver_jax import predictions
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.serving import answers, batching, decoding, looking, metrics, over_time
from perceiver_jax.serving import limits as limits_lib

Json = dict[str, Any]

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
BATCH_WAIT = 0.005  # Seconds.
_NO_EXAMPLE = ("application/json", b"{}")  # Is refused, when a process has started.


class Service:
    """A model that answers many requests at once.

    Attributes:
        run: the model.
        limits: what a request may cost.
        metrics: what is counted.
        state: 'warming up', 'ready' or 'ending'.
    """

    def __init__(
        self,
        run: Any,
        limits: limits_lib.Limits,
        *,
        batch_sizes: Sequence[int] = BATCH_SIZES,
        batch_wait: float = BATCH_WAIT,
        num_processes: int = 1,
        with_page: bool = False,
    ):
        """Computes nothing yet.

        Args:
            run: what `load_pretrained` returned.
            limits: what a request may cost.
            batch_sizes: numbers of examples that are computed at once, a program each.
            batch_wait: seconds that a batch waits for more at most, see `batching.Batcher`.
            num_processes: that read what requests hold.
            with_page: whether what the page asks for is warmed up, too.
        """
        self.run, self.limits, self.state = run, limits, "warming up"
        self.metrics = metrics.Metrics(tuple(sorted(set(batch_sizes))))
        compute = functools.partial(predictions.compute, run)
        self._batcher = batching.Batcher(compute, batch_sizes, batch_wait, self._observe)
        self._decoder = decoding.Decoder(run, limits, num_processes)
        self._num_processes, self._with_page = num_processes, with_page
        self._readers = futures.ThreadPoolExecutor(num_processes, "reads")
        self._others = futures.ThreadPoolExecutor(4, "others")
        self._frames = predictions.only_frames(run)
        self._looking = looking.Looking(run)
        self._last_look = looking.cross_attends(run)[-1]["index"]
        self._num_parts, self._label = over_time.num_parts(run), over_time.label_of(run)
        self._read_parts = over_time.make_reader(run) if self._num_parts > 1 else None
        self._rows, self._most_rows = 0, max(4 * self._batcher.sizes[-1], limits.rows)
        self._fewer_rows = asyncio.Condition()
        self.metrics.watch("rows_waiting", "Rows that wait for a batch.", self._batcher.waiting)
        self.metrics.watch("ready", "Whether requests are taken.", lambda: self.state == "ready")

    # ------------------------------------------------------------------ begin and end

    def warm_up(self) -> None:
        """Compiles a program for each size of batch, and starts the processes that read."""
        started = [
            self._readers.submit(self._decoder.read, "examples", *_NO_EXAMPLE)
            for _ in range(self._num_processes)
        ]
        row = self._zeros()
        for size in self._batcher.sizes:
            batch = {name: np.repeat(x, size, axis=0) for name, x in row.items()}
            self._batcher.submit(batch).result()
        if self._with_page:
            with contextlib.suppress(decoding.RefusedError):  # There is none of this model.
                self._batcher.call(lambda: self._looking.look(row, self._last_look)).result()
            if self._read_parts and self._label:
                self._batcher.call(lambda: self._read_parts(_part(row, self._num_parts))).result()
        for start in started:
            with contextlib.suppress(decoding.RefusedError):
                start.result()
        self.state = "ready"

    def end(self) -> None:
        """Ends threads and processes, when all is answered."""
        self.state = "ending"
        self._batcher.stop()
        self._decoder.stop()
        self._readers.shutdown(cancel_futures=True)
        self._others.shutdown(cancel_futures=True)
        self._decoder.end()

    def _observe(self, *batch: Any) -> None:
        """Counts a batch, of requests alone: there are none before the model is warm."""
        if self.state != "warming up":
            self.metrics.batch(*batch)

    def _zeros(self) -> dict[str, np.ndarray]:
        """A row like those of requests."""
        fields = self.run.fields
        inputs = [name for name, field in fields.items() if not field.is_target]
        names = [self._frames] if self._frames else [*inputs, *self.run.hidden]
        row = fields_lib.zero_batch({name: fields[name] for name in names})
        row |= {f"{name}_mask": np.array([True]) for name in self.run.may_lack}
        return row if self._frames else row | {"example_id": np.array([0], np.int32)}

    # ------------------------------------------------------------------ answers

    async def predict(
        self,
        content_type: str,
        body: bytes,
        k: int = 5,
        num_windows: int = 1,
        up: str = "y",
        arrays: str = "lists",
    ) -> list[Json]:
        """Returns what `Run.predict` does of the examples of a body, as JSON values.

        Args:
            content_type: the header.
            body: what came with it.
            k: as of `Run.predict`, like those that follow.
            num_windows: of each example.
            up: the vertical axis of points.
            arrays: one of `answers.ARRAYS`.

        Raises:
            decoding.RefusedError: the client has to send something else.
            decoding.BrokenError: by a bug.
            batching.ExpiredError: there was no time for it.
        """
        deadline = self._deadline()
        if self._frames:
            options = {"name": self._frames, "num_windows": num_windows}
            pairs = await self._read(deadline, "pairs", content_type, body, **options)
            found = [await self._in_thread(self._flow, pair, deadline) for pair in pairs]
        else:
            options = {"num_windows": num_windows, "up": up}
            with self._batcher.announced():
                rows = await self._read(deadline, "examples", content_type, body, **options)
                future = self._batcher.submit(rows, deadline)
            async with self._counted(len(rows["example_id"])):
                predicted = await asyncio.wrap_future(future)
            found = self._answers(rows, predicted, num_windows, k)
        self.metrics.examples.inc(len(found))
        convert = functools.partial(answers.to_json, arrays=arrays)
        if any(isinstance(x, np.ndarray) for x in found[0].values()):
            return [await self._in_thread(convert, answer) for answer in found]
        return [convert(answer) for answer in found]

    async def look(self, content_type: str, body: bytes, layer: int | None, up: str) -> Json:
        """Returns what a layer attends to in the one example of a body; see `looking.Looking`."""
        deadline = self._deadline()
        options = {"num_windows": 1, "up": up}
        rows = await self._read(deadline, "examples", content_type, body, **options)
        if len(rows["example_id"]) != 1:
            raise decoding.RefusedError("Got several examples; expected one. Send one.")
        layer = self._last_look if layer is None else layer
        return await self._call(functools.partial(self._looking.look, rows, layer), deadline)

    async def over_time(self, content_type: str, body: bytes) -> Json:
        """Returns what the model makes of a recording over time; see `over_time.to_json`."""
        if self._label is None:
            raise decoding.RefusedError("This model has no classes of recordings.", 404)
        deadline = self._deadline()
        options = {"num_parts": self._num_parts}
        found = await self._read(deadline, "over_time", content_type, body, **options)
        async with self._counted(len(found.seconds)):
            if found.are_parts:
                read = functools.partial(self._read_parts, found.rows)
                predicted = await self._call(read, deadline)
            else:
                future = self._batcher.submit(found.rows, deadline)
                predicted = await asyncio.wrap_future(future)
        names = self.run.class_names[self._label]
        predictions.check_finite(predicted)
        return over_time.to_json(found.seconds, predicted[self._label], names, found.are_parts)

    def _answers(self, rows: Any, predicted: Any, num_windows: int, k: int) -> list[Json]:
        found = []
        for begin in range(0, len(rows["example_id"]), num_windows):
            part = slice(begin, begin + num_windows)
            batch, of_one = ({n: x[part] for n, x in of.items()} for of in (rows, predicted))
            found.append(predictions.answer(self.run, batch, of_one, k))
        return found

    def _flow(self, pair: np.ndarray, deadline: float) -> Json:
        def compute_tile(batch: dict[str, np.ndarray]) -> Any:
            return self._batcher.submit(batch, deadline).result()

        return predictions.flow_of_pair(self.run, self._frames, pair, compute_tile)

    async def _read(
        self, deadline: float, what: str, content_type: str, body: bytes, **options: Any
    ) -> Any:
        """Reads a body in a process, when there are not too many rows that wait."""

        def read() -> Any:
            if time.monotonic() > deadline:
                raise batching.ExpiredError("waited for too long")
            return self._decoder.read(what, content_type, body, **options)

        async with self._fewer_rows:
            await self._fewer_rows.wait_for(lambda: self._rows < self._most_rows)
        with self.metrics.decode_seconds.time():
            return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    @contextlib.asynccontextmanager
    async def _counted(self, number: int) -> AsyncIterator[None]:
        """Counts rows until they are computed."""
        self._rows += number
        try:
            yield
        finally:
            self._rows -= number
            async with self._fewer_rows:
                self._fewer_rows.notify_all()

    async def _call(self, function: Callable[[], Any], deadline: float) -> Any:
        return await asyncio.wrap_future(self._batcher.call(function, deadline))

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._others, function, *args)

    def _deadline(self) -> float:
        return time.monotonic() + self.limits.answer_seconds


def _part(row: dict[str, np.ndarray], num_parts: int) -> dict[str, np.ndarray]:
    """The first part of a row: of masks, which have one element, all."""
    return {name: x[:, : x.shape[1] // num_parts] if x.ndim > 1 else x for name, x in row.items()}
