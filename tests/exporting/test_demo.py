"""The page that runs a model in the browser: its files, and in Chromium what it computes."""

import base64
import functools
import http.server
import io
import json
import re
import shutil
import tarfile
import threading

import numpy as np
import pytest

from experiments import export as command
from perceiver_jax import config as config_lib
from perceiver_jax import data, exporting
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.exporting import demo, preparing
from tests.data.photographs import photograph
from tests.exporting.conftest import RUNTIME

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
pytestmark = pytest.mark.xdist_group("export")
FILES = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm", "package.json")


@pytest.fixture(scope="session")
def site(digits_folder):
    """The address of a host that only hands out files."""
    handler = functools.partial(_Quiet, directory=digits_folder / "demo")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def test_all_that_the_page_loads_is_in_its_folder(digits_folder):
    root = digits_folder / "demo"
    found = 0
    for path in [root / "index.html", *(root / "page").iterdir()]:
        content = path.read_text()
        for name in re.findall(r'(?:src|href)="(page/[^"]+)"', content):
            assert (root / name).is_file(), name
        for name in re.findall(r'(?:from|import|URL\() ?"(\.[^"]+)"', content):
            found += 1
            assert (path.parent / name).resolve().is_file(), name
        addresses = set(re.findall(r"https?://[\w./]+", content))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path  # Is a name.
    assert found > 10
    about = json.loads((root / "model" / "about.json").read_text())
    assert about["examples"] == ["photo_1.png", "photo_2.png"]
    assert all((root / "examples" / name).is_file() for name in about["examples"])
    assert (root / "model" / "model.onnx").read_bytes() == (
        digits_folder / "model.onnx"
    ).read_bytes()


def test_the_page_says_that_nothing_leaves_the_computer_and_may_ask_no_other(digits_folder):
    index = (digits_folder / "demo" / "index.html").read_text()
    assert "the model runs in this browser" in index and "docs" not in index
    assert "default-src 'self'; script-src 'self' 'wasm-unsafe-eval';" in index


@needs_chromium
@pytest.mark.parametrize("crop", ["inception", "centre", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_browser_prepares_pictures_as_we_do(browser, site, crop, channels):
    field = fields_lib.FIELDS["image"](image_size=29, crop=crop, channels=channels)
    about = {"kind": "image", "preprocessing": preparing.describe("x", field, {}).numbers}
    content = photograph(3, file_format="png")
    found = _prepared(browser, site, {"x": about}, content)["x"]
    assert found["shape"] == [29, 29, channels]
    expected = data.prepare([content], {"x": field})["x"][0]
    difference = np.abs(np.reshape(found["data"], expected.shape) - expected.astype(float))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # Where a half is rounded.


@needs_chromium
@pytest.mark.parametrize("cls_sep", [False, True])
def test_the_browser_prepares_texts_as_we_do(browser, site, cls_sep):
    field = fields_lib.FIELDS["masked_text"](max_length=23, cls_sep=cls_sep)
    about = {"kind": "masked_text", "preprocessing": preparing.describe("x", field, {}).numbers}
    mask = {"kind": "mask", "of": "x", "shape": ["batch", 23]}
    for given in ("Wo ist[MASK][MASK]? ä", "a longer text than there is room for"):
        found = _prepared(browser, site, {"x": about, "x_mask": mask}, given)
        expected = data.prepare([given], {"x": field})
        assert found["x"]["data"] == expected["x"][0].tolist()
        assert found["x_mask"]["data"] == expected["x_mask"][0].astype(int).tolist()


def _prepared(browser, site, described, given):
    """The arrays that the page makes of a text, or of a file's bytes."""
    is_text = isinstance(given, str)
    page = browser.new_page()
    page.goto(f"{site}model/about.json")
    found = page.evaluate(
        """async ([address, described, given, isText]) => {
          const { prepare } = await import(address);
          const blob = () => new Blob([Uint8Array.from(atob(given), (c) => c.charCodeAt(0))]);
          const batch = await prepare(described, { x: isText ? given : blob() });
          const plain = ([name, x]) => [name, { ...x, data: Array.from(x.data) }];
          return Object.fromEntries(Object.entries(batch).map(plain));
        }""",
        [
            f"{site}page/preparing.js",
            described,
            given if is_text else base64.b64encode(given).decode(),
            is_text,
        ],
    )
    page.close()
    return found


@needs_chromium
@pytest.mark.skipif(not RUNTIME, reason="ONNXRUNTIME_WEB names no folder of onnxruntime-web")
def test_the_page_in_a_browser_says_what_the_run_says_and_asks_nobody_else(
    browser, site, digits_folder, run_of
):
    requests, problems = [], []
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda x: problems.append(x.text) if x.type == "error" else None)
    page.goto(site)
    page.wait_for_selector('#answer[data-ready="true"]', timeout=60_000)
    (path,) = digits_folder.glob("examples/photo_2.png")
    page.locator("#controls input[type=file]").set_input_files(path)
    page.wait_for_selector("#maps figure >> nth=3", timeout=60_000)
    page.locator("#controls input[type=checkbox]").uncheck()  # As it is.
    ((best, probability), *_) = run_of("imagenet.py:mini").predict(path)[0]["label"]
    said = f"{best} {100 * probability:.0f} %"
    # The answer before, to the picture as strokes, is there until this one is.
    found = page.wait_for_function(
        "said => document.querySelector('#results .best').innerText === said", arg=said
    )
    assert found.json_value()
    assert page.locator("#layer option").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not problems
    assert all(url.startswith((site, "blob:", "data:")) for url in requests)
    page.close()


def test_models_that_a_browser_cannot_run_are_refused_with_what_can_be_done(run_of, tmp_path):
    for recipe, why in (
        ("audioset.py:mini", "reads audio, video; expected one of array, image, text alone"),
        ("flow.py:mini", "reads frames; expected one of"),
    ):
        with pytest.raises(config_lib.UserError, match=why):
            exporting.export(run_of(recipe), tmp_path / "folder", static_demo=tmp_path)
    assert not (tmp_path / "folder").exists()


def test_a_folder_that_is_not_of_onnxruntime_web_is_refused(run_of, tmp_path):
    with pytest.raises(config_lib.UserError, match=r"lacks dist/ort-wasm.*npm pack onnxruntime-"):
        exporting.export(run_of("imagenet.py:mini"), tmp_path / "folder", static_demo=tmp_path)


def test_examples_are_checked_before_anything_is_computed(tmp_path):
    for name in ("a/x.png", "b/x.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(config_lib.UserError, match=r"There is no .*lost\.png; expected files"):
        exporting.export(None, tmp_path / "out", examples=[tmp_path / "lost.png"])
    with pytest.raises(config_lib.UserError, match=r"Two examples are called x\.png"):
        exporting.export(None, tmp_path / "out", examples=sorted(tmp_path.glob("*/x.png")))


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("imagenet.py:mini", "bad.png"),
        ("imagenet.py:mini", "notes.md"),
        ("flow.py:mini", "bad.png"),
        ("audioset.py:mini", "good.png"),
    ],
)
def test_an_example_that_the_model_can_not_read_is_refused_before_anything_is_written(
    run_of, examples, recipe, name
):
    with pytest.raises(config_lib.UserError, match=rf"^Can't read {examples / name}: .*Correct it"):
        exporting.export(run_of(recipe), examples / "out", examples=[examples / name])
    assert not (examples / "out").exists()


@pytest.mark.parametrize("recipe", ["imagenet.py:mini", "flow.py:mini"])
def test_a_picture_is_an_example_for_a_model_of_pictures_or_of_pairs(run_of, examples, recipe):
    demo.check_examples(run_of(recipe), [examples / "good.png"])


def test_more_examples_than_a_page_has_are_refused(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(demo.MOST_EXAMPLES + 1)]
    for path in paths:
        path.write_bytes(b"x")
    assert len(demo.read_examples(paths[1:])) == demo.MOST_EXAMPLES
    with pytest.raises(config_lib.UserError, match="Got 25 examples; expected at most 24"):
        demo.read_examples(paths)
    paths[3].write_bytes(bytes(demo.MOST_BYTES + 1))
    with pytest.raises(config_lib.UserError, match="3.png has 4,194,305 bytes; expected at most"):
        demo.read_examples(paths[:4])


@pytest.fixture
def examples(tmp_path):
    """A folder with a file that is a picture, and some that are none."""
    (tmp_path / "good.png").write_bytes(photograph(1, file_format="png"))
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "notes.md").write_text("# Notes")
    return tmp_path


def _fake_npm(folder, script):
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)


def test_onnxruntime_web_is_fetched_by_npm_if_it_is_asked_for(tmp_path, monkeypatch):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in (*FILES, "../outside"):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    (tmp_path / "packed").write_bytes(content.getvalue())
    copy = f'echo "$@" > {tmp_path}/asked; {shutil.which("cp")} {tmp_path}/packed ort.tgz'
    _fake_npm(tmp_path, copy)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = demo.find_runtime("npm")
    assert found == dict(
        zip(("ort.js", "ort.wasm", "package.json"), map(str.encode, FILES), strict=True)
    )
    assert (tmp_path / "asked").read_text() == f"pack onnxruntime-web@{demo.VERSION} --silent\n"


def test_what_npm_cannot_do_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(config_lib.UserError, match="There is no npm, which fetches onnxruntime-w"):
        demo.find_runtime("npm")
    _fake_npm(tmp_path, "echo 'npm error network' >&2; exit 1")
    with pytest.raises(config_lib.UserError, match=r"could not fetch .*: npm error network\."):
        demo.find_runtime("npm")


def test_a_model_without_onnx_file_has_no_demo_and_the_rest_all_the_same(
    digits_folder, tmp_path, monkeypatch, capsys
):
    def refuse(*_, **__):
        raise NotImplementedError("no lowering of\nmagic")

    monkeypatch.setattr("jax2onnx.to_onnx", refuse)
    runtime = RUNTIME or digits_folder.parent / "runtime"
    flags = [f"--workdir={digits_folder}", f"--output={tmp_path / 'a'}"]
    with pytest.raises(SystemExit) as ended:
        command.main([*flags, f"--static_demo={runtime}", "--onnx"])
    said = "There is no ONNX file and no demo: NotImplementedError: no lowering of"
    assert ended.value.code == said
    assert capsys.readouterr().out == f"wrote {tmp_path / 'a'}\n"
    about = json.loads((tmp_path / "a" / "export.json").read_text())
    assert "onnx" not in about and (tmp_path / "a" / about["programs"]["predict"]).exists()
    assert not {path.name for path in (tmp_path / "a").iterdir()} & {"model.onnx", "demo"}
