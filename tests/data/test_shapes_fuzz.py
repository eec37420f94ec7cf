"""Mutated files of shapes: each gives sound points or is refused, in a process that lives on.

    PERCEIVER_FUZZ=1000 python -m pytest -n 0 -s tests/data/test_shapes_fuzz.py

mutates so many files of each form instead of a few, and prints what became of them.
"""

import collections
import io
import os

import h5py
import numpy as np
import pytest
import trimesh

from perceiver_jax.data.builders.shapes import reading
from tests.data import shape_files

FORMS = ("off", "h5", "npy", "npz", "obj", "ply", "stl")
COUNTS = dict.fromkeys(FORMS, 30) | {"off": 150, "h5": 150}
NUM_POINTS = 7
# Numbers and words that parsers stumble over.
TOKENS = (b"-1", b"0", b"nan", b"inf", b"1e999", b"4294967296", b"9" * 18, b"9" * 99, b"#", b"\n")


def make_files():
    """Small files as libraries write them, several of a form."""
    ball = trimesh.creation.icosphere(subdivisions=1)
    rng = np.random.default_rng(0)
    arrays = {"data": rng.normal(size=(3, NUM_POINTS, 3)).astype(np.float32)}
    arrays["label"] = np.arange(3, dtype=np.uint8)[:, None]
    h5 = []
    for options in ({}, {"compression": "gzip", "shuffle": True, "chunks": True}):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, **options)
        h5.append(buffer.getvalue())
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, arrays["data"][0])
    names = np.array(["a", "b", "c"])
    np.savez_compressed(npz, points=arrays["data"], label=arrays["label"], class_names=names)
    return {
        "off": [shape_files.box_off((1, 2, 3)), ball.export(file_type="off").encode()],
        "h5": h5,
        "npy": [npy.getvalue()],
        "npz": [npz.getvalue()],
        "obj": [ball.export(file_type="obj").encode()],
        "ply": [ball.export(file_type="ply"), ball.export(file_type="ply", encoding="ascii")],
        "stl": [ball.export(file_type="stl"), ball.export(file_type="stl_ascii").encode()],
    }


def mutate(data, rng):
    """Changes one or two places, often near the begin, where headers are."""
    for _ in range(rng.integers(1, 3)):
        reach = len(data) if rng.random() < 0.7 else min(len(data), 100)
        start = int(rng.integers(reach)) if reach else 0
        end = start + int(rng.integers(1, 9))
        middle = data[start:end]
        flipped = bytes(byte ^ (1 << rng.integers(8)) for byte in middle)
        replacement = (
            flipped,
            rng.bytes(len(middle)),
            b"",
            middle * int(rng.integers(2, 99)),
            TOKENS[rng.integers(len(TOKENS))],
        )[rng.integers(5)]
        data = data[:start] + replacement + data[end:]
        if rng.random() < 0.1:
            data = data[: rng.integers(len(data) + 1)]
    return data


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """For each form what became of its mutated files."""
    folder = tmp_path_factory.mktemp("fuzz")
    rng = np.random.default_rng(int(os.environ.get("PERCEIVER_FUZZ_SEED", 0)))
    tasks = []
    for form, files in make_files().items():
        for i in range(int(os.environ.get("PERCEIVER_FUZZ", COUNTS[form]))):
            path = folder / f"{i}.{form}"
            path.write_bytes(mutate(files[i % len(files)], rng))
            tasks.append(
                {
                    "path": str(path),
                    "name": path.name,
                    "key": path.name,
                    "class": "a",
                    "class_names": ["a", "b", "c"],
                    "num_points": NUM_POINTS,
                    "z_up": True,
                }
            )
    by_form = {form: [] for form in FORMS}
    results = reading.read_all(tasks, time_limit=20.0, max_memory=1 << 30)
    for task, items in zip(tasks, results, strict=True):
        by_form[task["path"].rpartition(".")[2]].append(items)
    return by_form


@pytest.mark.parametrize("form", FORMS)
def test_mutated_files_give_sound_points_or_are_refused_with_a_cause(results, form):
    counts = collections.Counter()
    for items in results[form]:
        assert items
        for _, label, value in items:
            if label:
                assert value.shape == (NUM_POINTS, 3) and value.dtype == np.float32
                assert np.abs(np.linalg.norm(value, axis=1).max() - 1) < 1e-5
            else:
                cause, detail = value
                assert detail
            counts["sound" if label else cause] += 1
    print(form, len(results[form]), "files:", dict(counts.most_common()))
    assert counts["sound"]  # Some mutations do no harm; otherwise nothing was read at all.
    assert not counts["crashed"] + counts["took too long"], counts
