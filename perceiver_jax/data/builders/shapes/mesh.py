"""Mesh files -> points; a file that can't hold what its header claims is refused unparsed."""

import io
import math
import re

import numpy as np

from perceiver_jax.data import errors
from perceiver_jax.data.builders.shapes import clouds

SUFFIXES = (".obj", ".off", ".ply", ".stl")

_STL_HEADER, _STL_FACE = 84, 50
_HEADER_BYTES = 65_536  # The header of an OFF or PLY file ends within these.

# `OFF` and the counts may share a line, and in many files of ModelNet40 nothing is between them.
_OFF_HEADER = re.compile(
    rb"(?:\s|#[^\n]*\n)*[A-Z]{0,3}OFF(?:\s|#[^\n]*\n)*(\d{1,18})[ \t]+(\d{1,18})"
)
_OBJ_VERTEX = re.compile(rb"^v[ \t]+[-+.\d]", re.MULTILINE)
_PLY_ELEMENT = re.compile(rb"^[ \t]*element[ \t]+(\w+)[ \t]+(\d{1,18})[ \t\r]*$", re.MULTILINE)
# Relative (negative) ones, which trimesh takes for those of the whole file, and zeros.
_OBJ_BAD_INDEX = re.compile(rb"^f[^\n]*[ \t](?:-\d|0+(?:[ \t\r/]|$))", re.MULTILINE)


def sample_mesh(data: bytes, suffix: str, num_points: int, seed: int) -> np.ndarray:
    """Samples a mesh's surface uniformly by area; a PLY or OBJ of points alone gives those.

    Args:
        data: the whole file.
        suffix: one of `SUFFIXES`.
        num_points: number of points P.
        seed: decides the points.

    Returns:
        float64 [P, 3], in the file's units.

    Raises:
        errors.BadDataError: the file is no mesh of this form, incomplete, or of no use.
    """
    import trimesh

    clouds.check_size(len(data))
    num_faces = _check_claims(data, suffix)
    try:
        scene = trimesh.load_scene(
            io.BytesIO(data), file_type=suffix[1:], process=False, skip_materials=True
        )
        parts = list(scene.geometry.values())
        if parts and all(isinstance(part, trimesh.PointCloud) for part in parts):
            points = np.concatenate([part.vertices for part in parts])
            return clouds.choose(points, num_points, seed)
        mesh = scene.to_mesh()
    except IndexError as error:
        raise errors.BadDataError("index out of range", str(error)) from error
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    if len(faces) < num_faces:
        raise errors.BadDataError(
            "incomplete", f"{len(faces):,} of {num_faces:,} faces can be read"
        )
    if not len(faces):
        raise errors.BadDataError("no faces", f"{len(vertices)} vertices and no face")
    clouds.check_finite(vertices)
    if faces.min() < 0 or faces.max() >= len(vertices):
        found = f"indices {faces.min()} to {faces.max()} of {len(vertices)} vertices"
        raise errors.BadDataError("index out of range", found)
    area = mesh.area_faces.sum()
    if not 0 < area < math.inf:
        raise errors.BadDataError("no area", f"the surface's area is {area}")
    points, _ = trimesh.sample.sample_surface(mesh, num_points, seed=seed)
    return np.asarray(points)


def suffix_of(data: bytes) -> str:
    """Returns the suffix of files with such contents; '' if they are of none that is known."""
    begin = data[:_HEADER_BYTES]
    claimed = int.from_bytes(data[_STL_HEADER - 4 : _STL_HEADER], "little")
    is_of = {
        ".npy": begin.startswith(b"\x93NUMPY"),
        ".ply": begin.startswith(b"ply"),
        ".off": _OFF_HEADER.match(begin),
        ".stl": begin.lstrip()[:5].lower() == b"solid"
        or len(data) == _STL_HEADER + _STL_FACE * claimed,
        ".obj": _OBJ_VERTEX.search(begin),
    }
    return next(filter(is_of.get, is_of), "")


def _check_claims(data: bytes, suffix: str) -> int:
    """Refuses a file that is shorter than its header says, before it is parsed.

    Returns:
        The number of faces in the header; 0 if the form has none.
    """
    if suffix == ".off":
        header = _OFF_HEADER.match(data[:_HEADER_BYTES])
        if not header:
            raise errors.BadDataError("unreadable", "no header of an OFF file")
        claims = {"vertex": int(header[1]), "face": int(header[2])}
        _check_body(data, header.end(), claims, is_text=True)
        return claims["face"]
    if suffix == ".ply":
        end = data.find(b"end_header", 0, _HEADER_BYTES)
        if end < 0:
            raise errors.BadDataError("unreadable", "no header of a PLY file")
        found = _PLY_ELEMENT.findall(data, 0, end)
        claims = {name.decode(): int(number) for name, number in found}
        _check_body(data, end, claims, is_text=b"ascii" in data[:100])
        return claims.get("face", 0)
    if suffix == ".stl":
        _check_stl(data)
    if suffix == ".obj" and (bad := _OBJ_BAD_INDEX.search(data)):
        line = bad[0][:60].decode(errors="replace")
        raise errors.BadDataError("unsupported index", f"{line!r}; expected indices counted from 1")
    return 0


def _check_body(data: bytes, start: int, claims: dict[str, int], is_text: bool) -> None:
    if sum(claims.values()) > len(data):  # Each takes a byte or more.
        found = ", ".join(f"{number:,} x {name}" for name, number in claims.items())
        raise errors.BadDataError("incomplete", f"{found} claimed in a file of {len(data):,} bytes")
    if is_text:
        lines = data[start:].splitlines()[1:]  # Without the rest of the header's last line.
        rows = sum(1 for line in lines if line.strip() and not line.lstrip().startswith(b"#"))
        if rows < sum(claims.values()):
            found = f"{rows:,} of {sum(claims.values()):,} lines of vertices and faces are there"
            raise errors.BadDataError("incomplete", found)


def _check_stl(data: bytes) -> None:
    claimed = int.from_bytes(data[_STL_HEADER - 4 : _STL_HEADER], "little")
    if len(data) == _STL_HEADER + _STL_FACE * claimed:
        return
    if data.lstrip()[:5].lower() != b"solid":
        raise errors.BadDataError("incomplete", f"{claimed:,} faces claimed in {len(data):,} bytes")
    if not data.rstrip().rpartition(b"\n")[2].strip().lower().startswith(b"endsolid"):
        raise errors.BadDataError("incomplete", "no `endsolid` at the end")
