"""What a model takes and gives, as a page or a program that asks it can use."""

import pathlib
from typing import Any

from perceiver_jax import predictions
from perceiver_jax.exporting import demo
from perceiver_jax.serving import limits as limits_lib
from perceiver_jax.serving import looking, over_time

Json = dict[str, Any]

EXAMPLES = "examples"  # The folder of them in that of the model.
_MOST_NAMES = 1_000  # Of classes.


def describe(run: Any, limits: limits_lib.Limits, examples: list[str]) -> Json:
    """Returns JSON values.

    Args:
        run: the model.
        limits: of the server.
        examples: names of files that it has.
    """
    inputs = {name: field for name, field in run.fields.items() if not field.is_target}
    features = {field.feature for field in inputs.values()}
    outputs = [_output(run, name) for name in run.config.model.outputs]
    label = over_time.label_of(run)
    modes = "parts" if over_time.num_parts(run) > 1 else "windows"
    return {
        "name": run.workdir.name,
        "task": run.task.description,
        "inputs": [_input(run, name, field) for name, field in inputs.items()],
        # Whether one file can hold all of them.
        "one_file": len(inputs) == 1 or features <= {"audio", "video"},
        "outputs": outputs,
        "arrays": any(x["kind"] not in ("classes", "text") for x in outputs),
        "windows": any(field.has_windows for field in inputs.values()),
        "over_time": modes if label else None,
        "layers": looking.cross_attends(run),
        "examples": examples,
        "limits": {
            "upload_mb": limits.upload_mb,
            "rows": limits.rows,
            "pixels": limits.pixels,
            "clip_seconds": limits.clip_seconds,
        },
    }


def read_examples(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns the example files of a model's folder by name; none if it has none."""
    found = folder / EXAMPLES if folder.is_dir() else folder
    if not found.is_dir():
        return {}
    files = sorted(path for path in found.iterdir() if path.is_file() and path.name[0] != ".")
    small = [path for path in files if path.stat().st_size <= demo.MOST_BYTES]
    return {path.name: path.read_bytes() for path in small[: demo.MOST_EXAMPLES]}


def _input(run: Any, name: str, field: Any) -> Json:
    found = {"name": name, "kind": field.feature, "may_lack": name in run.may_lack}
    keys = run.config.model.inputs.get(name, {})
    match field.feature:
        case "image":
            found |= {"size": field.image_size, "channels": field.channels}
            if mean := keys.get("mean"):  # Dark pictures are of what is light on dark.
                found["mean"] = sum(mean) / len(mean)
        case "frames":
            height, width = field.image_size
            found |= {"height": height, "width": width}
            found["any_size"] = predictions.only_frames(run) is not None
        case "audio":
            found["seconds"] = field.num_samples / field.sample_rate
        case "video":
            found["seconds"] = field.num_frames / field.frames_per_second
        case "text":
            found["bytes"] = field.max_length - 2 * field.cls_sep
            found["has_gaps"] = name in run.config.model.outputs
        case "points":
            found["points"] = field.num_points
        case "array":
            found |= {"shape": list(field.shape), "type": str(field.dtype)}
    return found


def _output(run: Any, name: str) -> Json:
    field = run.fields.get(name)
    feature = getattr(field, "feature", "")
    if name in run.class_names:
        names = run.class_names[name]
        found = {"classes": list(names[:_MOST_NAMES]), "number": len(names)}
        return {"name": name, "kind": "classes", **found}
    if feature == "number":
        return {"name": name, "kind": "numbers", "number": field.size}
    if feature == "audio":
        return {"name": name, "kind": "samples", "rate": field.sample_rate}
    kinds = {"text": "text", "flow": "flow", "video": "pictures"}
    return {"name": name, "kind": kinds.get(feature, "numbers")}
