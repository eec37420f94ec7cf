"""What tests have processes do that read files: to die, to hang, to fail, to take memory."""

import os
import sys
import time

import filelock


def act(task):
    """Does what a task says; 'fine' is what comes of any other."""
    name, number = task
    if name == "die":
        os._exit(number)
    if name == "hang":
        time.sleep(number)
    if name == "fail":
        raise ValueError(f"a bug, {number}")
    if name == "allocate":
        try:
            return len(bytearray(number))
        except MemoryError:
            return "out of memory"
    if name == "print":
        print("x" * number, flush=True)
        os.write(2, b"x" * number)
    if name == "lock":
        with filelock.FileLock(number):
            time.sleep(60)
    if name == "modules":
        return sorted(sys.modules)
    return "fine", number


def fail_to_start():
    """Raises what tells of a broken installation."""
    raise ImportError("no such library")
