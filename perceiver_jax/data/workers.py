"""How a process that decodes lives and dies: with the process that started it."""

import multiprocessing
import os
import pathlib
import signal
import sys
import threading

from perceiver_jax import config


def check_main_module(num_workers: int) -> None:
    """Refuses a script that each worker, which imports it, would run from its beginning.

    Raises:
        ValueError: the program is a file that doesn't tell whether it is imported.
    """
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None or not path.endswith(".py"):
        return  # A notebook, say: nothing is imported.
    try:
        source = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if "__main__" not in source:
        raise config.UserError(
            f"Got num_workers={num_workers} in {path}, which each of these processes would run "
            'from the beginning; expected that what it does is below `if __name__ == "__main__":`. '
            "Put it there, or set num_workers to 0."
        )


def begin(worker_index: int, worker_count: int) -> None:
    """Prepares a worker process; Grain calls it there.

    Signals that end a run go to all processes of a terminal or a job, but only the one that trains
    may answer them: it still needs batches for its last step. And if that one is killed, nobody
    else would end its workers: they would wait, with their memory, for as long as the machine runs.

    Args:
        worker_index: which worker this is.
        worker_count: how many there are.
    """
    del worker_index, worker_count
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
