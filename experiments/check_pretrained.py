"""Checks released weights against what was published of them; downloads those that are not there.

    python -m experiments.check_pretrained [NAME ...] [--cats=FILE]

Without names, all six. Of each: the number of parameters, and that every tensor is used and every
parameter found. Of the language model, the published filling of a gap and first logits; of image
models, the published first logits of a photograph of two cats (COCO val2017, 000000039769), if you
have it, and the likeliest classes of another one for you to judge; of the flow model, the motion of
a photograph that was moved; of the multimodal one, how well it reconstructs moving photographs.
"""

from collections.abc import Iterator
import pathlib
import sys
from typing import Any

import numpy as np

from experiments import cli
from perceiver_jax import config as config_lib

PARAMETERS = {
    "vision-perceiver-fourier": 48_440_627,
    "vision-perceiver-learned": 62_255_848,
    "vision-perceiver-conv": 48_646_522,
    "language-perceiver": 201_108_230,
    "optical-flow-perceiver": 41_057_134,
    "multimodal-perceiver": 19_858_855,
}
# First logits of the port, as its tests have them.
_CATS = {
    "vision-perceiver-fourier": (-1.1295, -0.2832, 0.3226),
    "vision-perceiver-learned": (-1.1652, -0.1992, -0.7520),
    "vision-perceiver-conv": (-1.1186, 0.0554, 0.0897),
}
_SENTENCE, _GAP = "This is an incomplete sentence where some words are", " missing."
# Of this sentence: those of the port's converter, and of its tests, which differ.
_LOGITS = (
    (
        (-11.8336, -11.6850, -11.8483),
        (-12.8149, -12.5863, -12.7904),
        (-12.8440, -12.6410, -12.8646),
    ),
    (
        (-10.8609, -10.7651, -10.9187),
        (-12.1689, -11.9389, -12.1479),
        (-12.1518, -11.9707, -12.2073),
    ),
)
_TOLERANCE = 2e-3  # Of logits: of other hardware, too.
_MOTION = (7, 3)  # Pixels to the right and down.
_DECIBELS = 15.0  # The paper's 24 is a mean over Kinetics.

Finding = tuple[str, str, str, bool | None]  # What, expected, got, whether that is so.


def main(argv: list[str]) -> None:
    """Runs the command; the exit code is 1 if something is not as published."""
    parser = cli.Parser(
        "python -m experiments.check_pretrained", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PARAMETERS)}")
    parser.add_argument("--cats", type=pathlib.Path, help="COCO's 000000039769, JPEG or PNG")
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        for name in flags.names:
            config_lib.check_known("released model", name, PARAMETERS)
        wrong = sum(_report(name, flags.cats) for name in flags.names or PARAMETERS)
    if wrong:
        sys.exit(1)


def _report(name: str, cats: pathlib.Path | None) -> int:
    """Prints what is found of a model; returns how much of it is not as published."""
    import perceiver_jax  # Here, for it takes seconds.

    run, wrong = perceiver_jax.load_pretrained(name), 0
    print(f"{name}: every tensor is used, every parameter found")
    count = perceiver_jax.param_count(run.params)
    findings = [("parameters", f"{PARAMETERS[name]:,}", f"{count:,}", count == PARAMETERS[name])]
    for what, expected, got, is_so in (*findings, *_CHECKS[name](run, name, cats)):
        verdict = {True: "as published", False: "NOT as published", None: "judge"}[is_so]
        print(f"  {what}: {got}; expected {expected}: {verdict}")
        wrong += is_so is False
    return wrong


def _of_text(run: Any, name: str, cats: Any) -> Iterator[Finding]:
    del name, cats
    (predicted,) = run.predict(_SENTENCE + len(_GAP) * "[MASK]")
    text = predicted["text"]
    yield "filled", repr(_SENTENCE + _GAP), repr(text), text == _SENTENCE + _GAP
    logits = np.asarray(run(run.prepare(_SENTENCE + len(_GAP) * "[MASK]"))["text"])[0, :3, :3]
    errors = [np.abs(logits - np.array(expected)).max() for expected in _LOGITS]
    expected = " or ".join(str(np.array(x[0])) for x in _LOGITS)
    yield "first logits", expected, str(logits[0]), min(errors) < _TOLERANCE


def _of_image(run: Any, name: str, cats: pathlib.Path | None) -> Iterator[Finding]:
    if cats is not None:
        logits = np.asarray(run(run.prepare(cats))["label"])[0, :3]
        is_so = bool(np.abs(logits - np.array(_CATS[name])).max() < _TOLERANCE)
        yield "first logits of the cats", str(np.array(_CATS[name])), str(logits), is_so
        (predicted,) = run.predict(cats)
        yield "the cats", "a kind of cat", _told(predicted), None
    (predicted,) = run.predict(_photographs()[0])
    yield "a photograph", "a palace, say", _told(predicted), None


def _told(predicted: dict[str, Any]) -> str:
    return ", ".join(f"{name.split(',')[0]} {p:.0%}" for name, p in predicted["label"])


def _of_flow(run: Any, name: str, cats: Any) -> Iterator[Finding]:
    del name, cats
    picture, (right, down) = _photographs()[0], _MOTION
    rows, columns = (n - moved for n, moved in zip(picture.shape, (down, right), strict=False))
    (predicted,) = run.predict((picture[down:, right:], picture[:rows, :columns]))
    middle = np.median(predicted["flow"].reshape(-1, 2), axis=0)
    is_so = bool(np.abs(middle - _MOTION).max() < 1)
    yield "median flow of a moved photograph", str(_MOTION), str(middle), is_so


def _of_clip(run: Any, name: str, cats: Any) -> Iterator[Finding]:
    del name, cats
    field, audio = run.fields["video"], run.fields["audio"]
    picture = _photographs()[1]
    side = min(picture.shape[0], picture.shape[1] - 2 * field.num_frames)
    frames = np.stack(
        [picture[:side, 2 * i : 2 * i + side] for i in range(field.num_frames)]
    )  # A camera that moves by 2 pixels a frame.
    samples = 0.3 * np.sin(2 * np.pi * 440 / audio.sample_rate * np.arange(audio.num_samples))
    example = {"video": frames, "audio": (samples, audio.sample_rate)}
    (predicted,) = run.predict(example)
    given = run.prepare(example)["video"][0]
    error = np.mean((predicted["video"] / 255.0 - given / 255.0) ** 2)
    decibels = float(-10 * np.log10(max(error, 1e-10)))
    yield "PSNR of video", f"over {_DECIBELS} dB", f"{decibels:.1f} dB", decibels > _DECIBELS
    yield "class", "anything", _told(predicted), None


def _photographs() -> list[np.ndarray]:
    """A palace in Beijing, and flowers, 427 x 640."""
    import sklearn.datasets  # Here, for it takes a second.

    return sklearn.datasets.load_sample_images().images


_CHECKS = {
    "vision-perceiver-fourier": _of_image,
    "vision-perceiver-learned": _of_image,
    "vision-perceiver-conv": _of_image,
    "language-perceiver": _of_text,
    "optical-flow-perceiver": _of_flow,
    "multimodal-perceiver": _of_clip,
}


if __name__ == "__main__":
    main(sys.argv[1:])
