"""How a process that decodes lives and dies: with the process that started it."""

import multiprocessing
import os
import signal
import threading


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
