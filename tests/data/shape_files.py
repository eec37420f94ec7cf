"""Small real meshes as files, and records of what was built from them."""

import pathlib

import trimesh

from perceiver_jax.data import datasets


def box_off(size, header="OFF\n"):
    """A box of triangles, `size` long along x, y and z, as an OFF file."""
    text = trimesh.creation.box(size).export(file_type="off")
    return text.replace("OFF\n", header, 1).encode()


def write_files(root: pathlib.Path, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def build(builder):
    """Builds a set; returns for each split the records by name."""
    datasets.build(builder)
    return read(datasets.find(builder.name, str(builder.data_dir_root)))


def read(stored):
    """Returns for each split of a set on disk the records by name."""
    return {
        split: {record["name"].decode(): record for record in stored.as_data_source(split)}
        for split in stored.info.splits
    }
