"""The page in a real browser: drawn, dropped, recorded, by keyboard, and on a phone."""

import io
import pathlib
import queue
import re
import shutil
import warnings

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from perceiver_jax.data.fields import image
from perceiver_jax.serving import bodies, guard
from tests.serving import live, small

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.xdist_group("page"),
]
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
FIELDS = {"image": image.Image(28, 1)}
STYLE = pathlib.Path(guard.__file__).parent / "page" / "style.css"
PHONE = {"width": 390, "height": 844}
THREE = (
    (0.3, 0.25),
    (0.5, 0.17),
    (0.66, 0.28),
    (0.45, 0.48),
    (0.68, 0.7),
    (0.5, 0.83),
    (0.3, 0.75),
)


@pytest.fixture(scope="module")
def browser():
    with warnings.catch_warnings(), playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def film():
    """A model of frames that reads two parts, one after the other."""
    return small.classifier(
        "video",
        {"kind": "video", "num_frames": 2, "image_size": 8},
        {"kind": "video", "patch_size": (1, 4, 4), "mean": (0.5,) * 3, "std": (0.5,) * 3}
        | {"position_encoding": small.fourier(2, 2, 2)},
        ("walking", "running", "sitting"),
        layers=("cross_attend_0", "latent_transformer_0") * 2,
        reads=("video[0]", "video[1]"),
    )


@pytest.fixture
def open_page(browser):
    """Opens the page of a server; at the end, nothing was asked of others, and nothing failed."""
    opened = []

    def open_page(server, **options):
        page = browser.new_page(**options)
        page.set_default_timeout(60_000)
        seen = {"asked": [], "said": [], "server": server}
        page.on("request", lambda request: seen["asked"].append(request))
        page.on("console", lambda said: seen["said"].append((said.type, said.text)))
        page.on("pageerror", lambda error: seen["said"].append(("error", str(error))))
        opened.append((page, seen))
        page.goto(f"{server.url}/")
        page.wait_for_selector("#answer[data-ready]")
        return page

    yield open_page
    for page, seen in opened:
        page.close()
        for request in seen["asked"]:
            assert request.url.startswith((seen["server"].url, "data:", "blob:")), request.url
        refused = [x for x in seen["said"] if x[0] == "error" and "422" not in x[1]]
        assert not refused


def draw(page, points=THREE):
    box = page.locator("canvas.draw").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def answer_of(page):
    """The likeliest class that is shown, and the file that was sent for it."""
    page.wait_for_selector("#results .best")
    return page.locator(".bars .name").all_text_contents()


@pytest.fixture
def sent(server, monkeypatch):
    """Returns the next file that the page sends: browsers don't tell."""
    arrived = queue.Queue()
    predict = server.served.predict

    def listen(content_type, body, **options):
        arrived.put((content_type, body))
        return predict(content_type, body, **options)

    def take():
        ((values,),) = (each.values() for each in bodies.read(*arrived.get(timeout=60), FIELDS, 1))
        return values

    monkeypatch.setattr(server.served, "predict", listen)
    return take


def pixels(file):
    return np.asarray(PIL.Image.open(io.BytesIO(file)).convert("L"))


def photo():
    """Dark strokes somewhere on paper that is not lit evenly."""
    light = 215 - 0.08 * np.mgrid[0:600, 0:450].sum(axis=0)
    ink = PIL.Image.new("L", (450, 600), 255)
    PIL.ImageDraw.Draw(ink).line(((90, 330), (150, 330), (130, 420)), fill=60, width=12)
    picture = PIL.Image.fromarray((light * np.asarray(ink) / 255).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, format="jpeg")
    return file.getvalue()


def test_a_drawing_is_named_as_predict_names_what_the_page_sent(open_page, server, digits, sent):
    page = open_page(server)
    draw(page)
    names, file = answer_of(page), sent()
    ((name, probability), *_) = digits.predict(file)[0]["label"]
    assert names[0] == name and len(names) == 5
    shown = page.locator("#results .best small").text_content()
    assert abs(float(re.search(r"[\d.]+", shown)[0]) - 100 * probability) <= 0.5
    assert page.locator("#status").text_content().startswith(f"It says {name}, ")
    digit = pixels(file)  # Light on black, in the middle, with a margin of 4.
    assert digit.shape == (28, 28) and not digit[:2].any() and not digit[:, :2].any()
    assert digit.max() > 200 and 0.05 < (digit > 99).mean() < 0.3
    centre = (digit.sum(axis=1) @ np.arange(28), digit.sum(axis=0) @ np.arange(28))
    np.testing.assert_allclose(np.array(centre) / digit.sum(), 13.5, atol=0.8)
    page.wait_for_selector("#maps figure:nth-of-type(5)")
    captions = page.locator("#maps figcaption").all_text_contents()
    assert captions[:2] == ["What it got", "All latents together"]
    page.get_by_role("button", name="Clear").click()
    page.wait_for_selector("#attention", state="hidden")
    assert not page.locator("#results > *").count()


def test_all_of_it_works_by_keyboard(open_page, server):
    page = open_page(server, reduced_motion="reduce")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "document.activeElement.ariaLabel ?? document.activeElement.textContent"
        )
        reached.append(found[:14].strip())
    places = [
        reached.index(name)
        for name in ("Place to draw.", "Clear", "Choose a pictu", "Use the camera")
    ]
    assert places == sorted(places)
    page.locator("canvas.draw").focus()
    for key in ["ArrowUp"] * 9 + [" "] + ["ArrowDown"] * 18 + [" "]:
        page.keyboard.press(key)
    page.wait_for_selector("#results .best")
    assert page.evaluate("document.activeElement.className") == "draw"
    assert page.locator("#status").get_attribute("role") == "status"
    layer = page.locator("#layer")
    assert layer.count() == 1
    duration = "getComputedStyle(document.querySelector('.fill')).transitionDuration"
    assert page.evaluate(duration) == "0s"


def test_a_photo_of_dark_strokes_is_turned_into_what_the_model_knows(open_page, server, sent):
    page = open_page(server, viewport=PHONE)
    choose = page.locator("input[type=file]").first
    choose.set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo()})
    digit = pixels(sent())
    assert digit.shape == (28, 28) and not digit[:3].any() and not digit[:, :3].any()
    assert digit.max() > 200 and 0.03 < (digit > 99).mean() < 0.2
    answer_of(page)
    page.get_by_role("checkbox").uncheck()
    assert pixels(sent()).shape == (600, 450)


def test_digits_of_the_data_set_are_sent_as_they_are(open_page, server, files, sent):
    page = open_page(server)
    for file in files[:2]:
        page.locator("input[type=file]").first.set_input_files(
            {"name": "a.png", "mimeType": "image/png", "buffer": file}
        )
        assert sent() == file
        answer_of(page)


def test_how_arrays_are_answered_is_asked_of_a_model_that_gives_some(open_page, server):
    page, asked = open_page(server), []
    page.on("request", lambda request: asked.append(request.url))
    draw(page)
    answer_of(page)
    assert f"{server.url}/predict" in asked
    described = server.client.get("/model").json() | {"arrays": True}
    page.route("**/model", lambda route: route.fulfill(json=described))
    page.reload()
    page.wait_for_selector("#answer[data-ready]")
    draw(page)
    page.wait_for_selector("#problem:not([hidden])")
    assert asked[-1] == f"{server.url}/predict?arrays=png"


def test_what_can_not_be_read_is_said(open_page, server):
    page = open_page(server)
    page.locator("input[type=file]").first.set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.wait_for_selector("#problem:not([hidden])")
    assert page.locator("#problem").text_content() == "That can't be read: not an image."
    assert page.locator("#problem").get_attribute("role") == "alert"
    draw(page)
    answer_of(page)
    page.wait_for_selector("#problem", state="hidden")


def test_a_picture_is_taken_with_the_camera(open_page, server):
    page = open_page(server)
    page.get_by_role("button", name="Use the camera").click()
    take = page.get_by_role("button", name="Take the picture")
    take.wait_for()
    take.click()
    page.wait_for_selector("#results .best, #problem:not([hidden])")


def test_a_recording_is_shown_over_time(open_page, film):
    with live.serving(film, demo=True) as server:
        page = open_page(server, viewport=PHONE)
        page.get_by_role("button", name="Record with the camera").click()
        stop = page.get_by_role("button", name="Stop (1 s)")
        stop.wait_for()
        stop.click()
        answer_of(page)
        page.wait_for_selector("#over-time:not([hidden])")
        assert "part by part" in page.locator("#over-time-about").text_content()
        assert page.locator("#chart polyline").count() == 3
        assert page.locator("#chart tbody tr").count() > 3
        page.wait_for_selector("#attention:not([hidden])")
        assert page.locator("#layer option").all_text_contents() == [
            "1 of 2, at video[0]",
            "2 of 2, at video[1]",
        ]
        page.get_by_label("Reading").select_option(index=0)
        page.close()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_screen(open_page, server, width):
    page = open_page(server, viewport={"width": width, "height": 844})
    draw(page)
    page.wait_for_selector("#attention:not([hidden])")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for button in page.get_by_role("button").all():
        if button.is_visible():
            box = button.bounding_box()
            assert box["height"] >= 40 and 0 <= box["x"] and box["x"] + box["width"] <= width


def test_every_control_has_a_name(open_page, server):
    page = open_page(server)
    draw(page)
    page.wait_for_selector("#attention:not([hidden])")
    names = page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea, canvas.draw, img")].map(
          (x) => x.ariaLabel || x.labels?.[0]?.textContent || x.textContent || x.alt || "<")"""
    )
    assert len(names) > 8 and not [name for name in names if not name.strip() or "<" in name]


@pytest.mark.parametrize("theme", [0, 1])
def test_texts_have_enough_contrast(theme):
    """At least 4.5, as WCAG 2 has it; of light and dark."""
    colours = dict(
        re.findall(r"--([\w-]+): (#\w{6});", STYLE.read_text().split(":root")[1 + theme])
    )

    def luminance(colour):
        levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    pairs = [(x, y) for x in ("ink", "soft", "accent", "bad") for y in ("panel", "back")]
    for text, back in [*pairs, ("on-accent", "accent"), ("on-mark", "mark")]:
        light, dark = sorted(luminance(colours[name]) for name in (text, back))[::-1]
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, back)
