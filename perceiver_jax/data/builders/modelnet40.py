"""modelnet40: points on 12,311 shapes of 40 classes, from what its users have on disk.

Wu et al. 2015, "3D ShapeNets: A Deep Representation for Volumetric Shapes". Nothing is downloaded.
Meshes of the official archive stand on the x-y plane: their z axis is up, as that of the `.npz`
form. They are turned by 90 degrees about the x axis, so that y is up as in the HDF5 release.
"""

import argparse
from collections.abc import Iterator, Sequence
import pathlib
import re
from typing import Any
import zipfile

from perceiver_jax import config
from perceiver_jax.data.builders import report, tree
from perceiver_jax.data.builders.shapes import builder, clouds, tables

CLASSES = tuple(
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door "
    "dresser flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand "
    "person piano plant radio range_hood sink sofa stairs stool table tent toilet tv_stand "
    "vase wardrobe xbox".split()
)
SIZES = {"train": 9_843, "test": 2_468}

_OFF = re.compile(r"(?:.*/)?(\w+)/(train|test)/([^/]+)((?i:\.off))")
_EXPECTED = (
    "the official ModelNet40.zip or its folder (CLASS/train/NAME.off, CLASS/test/NAME.off), the "
    "unpacked HDF5 release (ply_data_train*.h5, ply_data_test*.h5, shape_names.txt), or .npz files "
    "(train*.npz, test*.npz with points, label and class_names)"
)
_MAX_TEXT = 65_536  # Bytes of shape_names.txt, which has about 300.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.add_argument(
        "--source", required=True, help="ModelNet40.zip, or a folder of OFF, HDF5 or .npz files"
    )
    builder.add_num_points(parser)


def from_flags(flags: argparse.Namespace, data_dir: pathlib.Path) -> tuple["Modelnet40", None]:
    """Returns the builder, and nothing that TFDS has to download."""
    return Modelnet40(flags.source, data_dir, flags.num_points), None


class Modelnet40(builder.ShapeBuilder):
    """ModelNet40 from OFF meshes, the HDF5 release of 2,048 points, or `.npz` clouds."""

    DESCRIPTION = "ModelNet40: points on the surfaces of shapes of 40 classes; y is up."

    def __init__(
        self,
        source: pathlib.Path,
        data_dir: pathlib.Path,
        num_points: int | None = None,
    ):
        """Looks what the source is.

        Args:
            source: a folder or file; what lies there, or one folder below, decides how it is read.
            data_dir: where TFDS keeps data sets.
            num_points: number of points of a cloud; None: 2,048, and of `.npz` clouds all.

        Raises:
            UserError: there is nothing of ModelNet40, or it is there in several forms.
        """
        form, files = _recognise(source)
        make = {"off": _off_tasks, "zip": _zip_tasks, "hdf5": _hdf5_tasks, "npz": _npz_tasks}[form]
        tasks, skipped = make(files, num_points)
        if not any(tasks.values()):
            report.check_any(0, "meshes", str(source), skipped)
        super().__init__(
            tasks={split: tasks[split] for split in SIZES if tasks[split]},
            classes=CLASSES,
            num_points=next(task["num_points"] for split in SIZES for task in tasks[split]),
            skipped=skipped,
            data_dir=data_dir,
        )

    @property
    def note(self) -> str:
        """How many shapes the source had, after the build."""
        sizes = SIZES.items() if self.found else ()
        return "\n".join(
            f"Found {self.found[split]:,} of the {size:,} {split} shapes." for split, size in sizes
        )


# For each split, and what is left out.
Tasks = tuple[dict[str, list[dict[str, Any]]], list[report.Row]]


def _recognise(source: pathlib.Path) -> tuple[str, list[pathlib.Path]]:
    """Returns the form of the source and its files (of OFF meshes and archives: where they lie)."""
    if not source.exists():
        raise config.UserError(f"There is no {source}; expected {_EXPECTED}. Correct the path.")
    if source.is_file():
        if source.suffix.lower() != ".zip":
            raise config.UserError(
                f"Got the file {source}; expected a .zip archive or a folder: {_EXPECTED}."
            )
        return "zip", [source]
    below = (path for path in sorted(source.iterdir()) if path.is_dir())
    found = {}
    for folder in [source, *below]:
        forms = {
            "off": [folder] if next(_off_files(folder), None) else [],
            "zip": sorted(folder.glob("[Mm]odel[Nn]et40.zip")),
            "hdf5": sorted(path for s in SIZES for path in folder.glob(f"ply_data_{s}*.h5")),
            "npz": sorted(path for s in SIZES for path in folder.glob(f"{s}*.npz")),
        }
        found |= {(form, folder): files for form, files in forms.items() if files}
    if not found:
        there = tree.count_suffixes(tree.walk(source).files) or "no files"
        raise config.UserError(
            f"Found nothing of ModelNet40 in {source}, but {there}; expected {_EXPECTED}. Correct "
            "--source."
        )
    if len(found) > 1:
        where = [files[0] if form == "zip" else folder for (form, folder), files in found.items()]
        raise config.UserError(
            f"Found ModelNet40 several times in {source}: {', '.join(map(str, where))}. Move one, "
            "or name one of them."
        )
    ((form, _), files) = found.popitem()
    return form, files


def _off_files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for split in SIZES:
        files = sorted(folder.glob(f"*/{split}/*"))
        yield from (path for path in files if path.suffix.lower() == ".off")


def _off_tasks(folders: Sequence[pathlib.Path], num_points: int | None) -> Tasks:
    (folder,) = folders
    members = [(path.relative_to(folder).as_posix(), path, {}) for path in _off_files(folder)]
    return _mesh_tasks(members, num_points, folder)


def _zip_tasks(archives: Sequence[pathlib.Path], num_points: int | None) -> Tasks:
    if len(archives) > 1:
        raise config.UserError(f"Got several archives, {', '.join(map(str, archives))}; name one.")
    (archive,) = archives
    try:
        with zipfile.ZipFile(archive) as file:
            names = sorted(info.filename for info in file.infolist())
    except zipfile.BadZipFile as error:
        raise config.UserError(
            f"{archive} can't be read ({error}); expected a .zip archive. Download it again."
        ) from error
    members = [(name, archive, {"member": name}) for name in names if "__MACOSX" not in name]
    return _mesh_tasks(members, num_points, archive)


def _mesh_tasks(
    members: Sequence[tuple[str, pathlib.Path, dict[str, str]]],
    num_points: int | None,
    source: pathlib.Path,
) -> Tasks:
    tasks: dict[str, list[dict[str, Any]]] = {split: [] for split in SIZES}
    skipped = []
    for name, path, extra in members:
        match = _OFF.fullmatch(name)
        if not match or match[3].startswith("."):
            continue
        label, split, stem, suffix = match.groups()
        if label not in CLASSES:
            raise config.UserError(
                f"Got the class {label!r} in {source}; expected the 40 of ModelNet40, such as "
                "'airplane'. Prepare other meshes as a folder of your own (kind mesh_folder)."
            )
        if not report.is_utf8(stem):
            skipped.append(report.left_out(f"{label}/{split}/{stem}{suffix}", "name is not UTF-8"))
            continue
        tasks[split].append(
            {
                "path": str(path),
                "name": f"{label}/{split}/{stem}{suffix}",  # In an archive as in its folder.
                "key": stem,
                "class": label,
                "num_points": clouds.NUM_POINTS if num_points is None else num_points,
                "z_up": True,
                **extra,
            }
        )
    if not any(tasks.values()) and not skipped:
        there = tree.count_suffixes((name,) for name, _, _ in members if not name.endswith("/"))
        raise config.UserError(
            f"Found no mesh in {source}, but {there or 'no files'}; expected {_EXPECTED}. Correct "
            "--source."
        )
    return tasks, skipped


def _hdf5_tasks(files: Sequence[pathlib.Path], num_points: int | None) -> Tasks:
    names_file = files[0].with_name("shape_names.txt")
    if not names_file.is_file() or names_file.stat().st_size > _MAX_TEXT:
        raise config.UserError(f"Found no {names_file}; expected the classes' names, one a line.")
    class_names = names_file.read_text("utf-8-sig", errors="replace").split()
    if sorted(class_names) != sorted(CLASSES):
        raise config.UserError(
            f"Got {len(class_names)} names in {names_file}, {class_names[:3]} ...; expected the 40 "
            "of ModelNet40. Take the file that comes with the release."
        )
    points = clouds.NUM_POINTS if num_points is None else num_points
    settings = {"class_names": class_names, "num_points": points, "z_up": False}
    return _table_tasks(files, "ply_data_{}", settings)


def _npz_tasks(files: Sequence[pathlib.Path], num_points: int | None) -> Tasks:
    points = tables.npz_num_points(files[0]) if num_points is None else num_points
    settings = {"class_names": CLASSES, "num_points": points, "z_up": True}
    return _table_tasks(files, "{}", settings)


def _table_tasks(files: Sequence[pathlib.Path], prefix: str, settings: dict[str, Any]) -> Tasks:
    tasks = {
        split: [
            {"path": str(path), "name": path.name, **settings}
            for path in files
            if path.stem.startswith(prefix.format(split))
        ]
        for split in SIZES
    }
    return tasks, []
