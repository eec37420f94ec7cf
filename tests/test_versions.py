"""What setup.py allows and what the lock files pin agree, on every Python that is supported."""

import importlib.metadata
import pathlib

from packaging import markers, requirements, utils
import pytest

ROOT = pathlib.Path(__file__).parents[1]
# What `make install` can install.
EXTRAS = ("", "atari", "test", "cuda12", "cuda13", "tpu")


def _environment(python: str) -> dict[str, str]:
    linux = {"sys_platform": "linux", "platform_system": "Linux", "implementation_name": "cpython"}
    return (
        markers.default_environment()
        | linux
        | {
            "python_version": python,
            "python_full_version": f"{python}.0",
        }
    )


def _pins(name: str, python: str) -> dict[str, str]:
    """Versions by package, as a Python reads them from a lock file."""
    lines = (ROOT / name).read_text().splitlines()
    pinned = [requirements.Requirement(line) for line in lines if not line.startswith("#")]
    environment = _environment(python)
    return {
        utils.canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in pinned
        if one.marker is None or one.marker.evaluate(environment)
    }


def _asked(python: str) -> list[requirements.Requirement]:
    """What setup.py asks for."""
    environment = _environment(python)
    every = map(requirements.Requirement, importlib.metadata.requires("perceiver-haiku"))
    return [
        one
        for one in every
        if one.marker is None
        or any(one.marker.evaluate(environment | {"extra": extra}) for extra in EXTRAS)
    ]


@pytest.mark.parametrize(
    ("lock", "python"),
    [
        (f"requirements{lock}.lock", f"3.{minor}")
        for lock, minor in [("", 11), ("", 12), ("", 13), ("-oldest", 11)]
    ],
)
def test_a_lock_pins_what_setup_asks_for(lock, python):
    pins = _pins(lock, python)
    assert len(pins) > 100
    for one in _asked(python):
        assert one.specifier.contains(pins[utils.canonicalize_name(one.name)]), one


def test_the_locks_name_no_place_to_download_from():
    for path in ROOT.glob("requirements*.lock"):
        assert "://" not in path.read_text()
