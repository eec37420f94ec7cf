"""Processes that run tasks: a fault costs its task alone, or tells that the program is broken."""

from concurrent import futures
import os
import pathlib
import subprocess
import sys
import time

import filelock
import pytest

from perceiver_jax.data.builders import isolated
from tests.data import faults

ROOT = pathlib.Path(__file__).parents[2]


def run(*tasks, num_processes=2, **limits):
    return list(isolated.run_all(faults.act, tasks, num_processes, **limits))


def test_results_come_in_the_order_of_their_tasks():
    tasks = [("hang", 0.3), *(("fine", i) for i in range(7))]
    assert run(*tasks) == [("fine", number) for _, number in tasks]


def test_what_dies_or_hangs_costs_its_task_alone():
    died, fine, hung, again = run(
        ("die", 7), ("fine", 3), ("hang", 60), ("fine", 5), time_limit=1.0
    )
    assert (fine, again) == (("fine", 3), ("fine", 5))
    assert died == isolated.Ended("crashed", "the process ended with code 7")
    assert hung == isolated.Ended("took too long", "not done within 1 s")


def test_a_process_gets_no_more_memory_than_its_limit():
    size = 200 << 20
    assert run(("allocate", size), max_memory=1 << 30) == [size]
    assert run(("allocate", size), max_memory=100 << 20) == ["out of memory"]


def test_what_libraries_print_does_not_get_among_the_answers(capfd):
    assert run(("print", 100_000), ("fine", 3)) == [("fine", 100_000), ("fine", 3)]
    assert capfd.readouterr() == ("", "")


def test_a_bug_ends_it_all_with_its_traceback():
    with pytest.raises(isolated.BrokenError, match="(?s)act is broken.*fail.*ValueError: a bug, 3"):
        run(("fail", 3))


def test_objects_that_can_be_called_are_functions():
    assert list(isolated.run_all(faults.Adding(7), [3, 5], 1)) == [10, 12]
    with pytest.raises(isolated.BrokenError, match="(?s)Adding is broken.*ZeroDivisionError"):
        list(isolated.run_all(faults.Adding(7), [0], 1))


def test_what_a_process_isolates_it_does_itself():
    ((outer, (inner, number)),) = run(("nested", 3))
    assert outer == inner != os.getpid() and number == 3


def test_a_process_that_does_not_start_ends_it_all_with_its_message():
    results = isolated.run_all(faults.act, [("fine", 3)], 1, faults.fail_to_start)
    with pytest.raises(
        isolated.BrokenError, match="(?s)does not start, exit status 1:.*no such library"
    ):
        list(results)


def test_processes_import_neither_jax_nor_tfds_nor_the_users_program(tmp_path):
    program = tmp_path / "program.py"  # No `if __name__ == "__main__"`.
    program.write_text(
        "from perceiver_jax.data.builders import isolated; from tests.data import faults\n"
        "(names,) = isolated.run_all(faults.act, [('modules', 0)], 1)\n"
        "print('begun', *{'jax', 'tensorflow_datasets', 'grain'} & set(names))\n"
    )
    done = subprocess.run(
        [sys.executable, program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["begun"]


def test_a_process_that_hangs_ends_although_its_parent_was_killed(tmp_path):
    locked = tmp_path / "locked"
    program = (
        "from perceiver_jax.data.builders import isolated; from tests.data import faults\n"
        f"list(isolated.run_all(faults.act, [('lock', {str(locked)!r})], 1, time_limit=2.0))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    while not locked.exists():
        assert parent.poll() is None
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    filelock.FileLock(locked).acquire(timeout=10)


def test_processes_end_when_no_more_is_asked_for():
    results = isolated.run_all(faults.act, [("fine", 3), *[("hang", 60)] * 5], 2)
    next(results)
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 10


def test_a_process_that_died_while_it_waited_costs_no_task():
    pool = isolated.Pool(faults.act, 1)
    try:
        assert pool.run(("fine", 3)) == ("fine", 3)
        (process,) = pool._processes
        process._child.kill()
        process._child.wait()
        assert pool.run(("fine", 5)) == ("fine", 5)
    finally:
        pool.end()


def test_a_task_that_was_interrupted_leaves_no_answer_for_the_next(monkeypatch):
    pool = isolated.Pool(faults.act, 1)
    try:
        pool.run(("fine", 3))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(isolated.pickle, "load", interrupt)
            pool.run(("fine", 4))
        assert pool.run(("fine", 5)) == ("fine", 5)
    finally:
        pool.end()


def interrupt(file):
    raise KeyboardInterrupt


def test_tasks_of_other_threads_can_be_interrupted_and_the_pool_goes_on():
    pool = isolated.Pool(faults.act, 2)
    try:
        pool.run(("fine", 3))
        with futures.ThreadPoolExecutor() as threads:
            waiting = threads.submit(pool.run, ("hang", 60))
            while pool._idle.qsize() == 2 or not any(x._child for x in pool._processes):
                time.sleep(0.01)
            time.sleep(0.1)
            pool.interrupt()
            assert waiting.result(timeout=10).cause == "crashed"
        assert [pool.run(("fine", i)) for i in range(3)] == [("fine", i) for i in range(3)]
    finally:
        pool.end()


def test_what_a_program_forks_neither_uses_nor_ends_its_processes():
    program = (
        "import os, sys; from perceiver_jax.data.builders import isolated\n"
        "from tests.data import faults\n"
        "print(isolated.kept_pool(faults.act).run(('fine', 3)), flush=True)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.exit(isolated.kept_pool(faults.act).run(('fine', 5)) != ('fine', 5))\n"
        "print(os.waitpid(child, 0)[1], isolated.kept_pool(faults.act).run(('die', 9)))\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    ended = isolated.Ended("crashed", "the process ended with code 9")
    assert done.stdout.splitlines() == ["('fine', 3)", f"0 {ended}"]
