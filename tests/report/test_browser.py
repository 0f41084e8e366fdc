"""The page in a real browser: it draws, predicts, and works by keyboard and on a phone."""

import base64
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from jax_s6 import data
from jax_s6.config import DataConfig
from jax_s6.predict.pictures import read_digit

pytestmark = pytest.mark.chromium
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESK = {"width": 375, "height": 800}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, page_file):
    """Returns a function that opens the page offline; at the end no page may have logged anything."""
    contexts, complaints = [], []

    def open_it(viewport=DESK, **options):
        contexts.append(context := browser.new_context(viewport=viewport, offline=True, **options))
        page = context.new_page()
        page.set_default_timeout(120_000)  # the other cores may be compiling
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url[:80]))
        page.goto(page_file.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


def draw(page, points):
    page.locator("#paper").scroll_into_view_if_needed()
    box = page.locator("#paper").bounding_box()
    at = [(box["x"] + x * box["width"] / 280, box["y"] + y * box["height"] / 280) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(x, y, steps=6)
    page.mouse.up()


STROKES = {
    "7": [(70, 60), (200, 62), (120, 230)],
    "1": [(140, 40), (142, 240)],
    "3": [(80, 50), (190, 50), (130, 120), (190, 150), (190, 210), (140, 240), (80, 225)],
}


def test_the_page_computes_the_logits_of_jax_on_100_images(open_page, network):
    images = data.load(DataConfig(data_dir=data.EMBEDDED)).test_images[:100]
    page = open_page()
    logits = page.evaluate(
        """(text) => Array.from({ length: 100 }, (_, n) =>
        forward(bytesOf(text).subarray(784 * n, 784 * (n + 1)), layers, report.mean, report.std))""",
        base64.b64encode(images.tobytes()).decode(),
    )
    np.testing.assert_allclose(logits, network.logits(images), atol=1e-4)


def test_a_drawing_gets_the_prediction_that_predict_gives(open_page, network, tmp_path):
    page = open_page()
    for digit, points in STROKES.items():
        draw(page, points)
        seen, probabilities = page.evaluate(
            "() => { const d = toDigit(inkOnPaper(), 280, 280); return [Array.from(d), probabilitiesOf(d)]; }"
        )
        text = page.evaluate("inkOnPaper().join(' ')")  # one text, because playwright is slow with many numbers
        ink = np.array(text.split(), np.float32).reshape(280, 280)
        Image.fromarray(np.round(255 * (1 - ink)).astype(np.uint8)).save(path := tmp_path / f"{digit}.png")
        image = read_digit(path)
        assert np.abs(np.reshape(seen, (28, 28)) - image.astype(int)).max() <= 3
        expected = network.predict_proba(image)[0]
        np.testing.assert_allclose(probabilities, expected, atol=0.01)
        shown = page.inner_text("#prediction")
        assert shown.startswith(f"{expected.argmax()} ") and shown.startswith(digit)
        assert page.locator("#bars li").count() == 10
        page.click("#clear")
        assert page.inner_text("#prediction") == "The prediction appears here."


def test_the_keyboard_draws_reads_charts_and_chooses_lanes(open_page):
    page = open_page()
    page.focus("#paper")
    for _ in range(17):
        page.keyboard.press("ArrowDown")
    assert page.inner_text("#prediction").startswith("1 ")
    page.keyboard.press("Delete")
    assert page.inner_text("#prediction") == "The prediction appears here."
    page.focus("#part1")
    page.keyboard.press("ArrowRight")
    tip = page.inner_text("#part1 .tip")
    assert tip.startswith("iteration 0") and tip.count(": 0.014181") == 6
    page.locator("#lanes input").first.focus()
    page.keyboard.press("Space")
    assert page.evaluate("[...shownLanes]") == [1, 2, 3, 4]
    page.focus("#none")
    page.keyboard.press("Enter")
    assert page.evaluate("shownLanes.size") == 0 and page.locator("#lanes input:checked").count() == 0


def test_hover_shows_values_and_sections_are_filled(open_page):
    page = open_page()
    page.locator("#rates").scroll_into_view_if_needed()
    page.hover("#rates .u-over")
    assert "final test accuracy" in page.get_attribute("#rates", "aria-label")
    assert re.search(
        r"learning rate [\d.]+\n(grid, (mean|lane)|first <!--<script><b>run): \d", page.inner_text("#rates .tip")
    )
    assert page.inner_text("#lost") == "Lanes that diverged and are not shown: 1, at learning rate 2."
    counts = {"#confusion tbody tr": 10, "#mistakes figure": 30, "#filters canvas": 16, "#score tbody tr": 6}
    assert {name: page.locator(name).count() for name in counts} == counts
    assert page.locator("#lanes label").first.inner_text() == "first <!--<script><b>run"


def test_lines_are_named_and_numbers_have_the_same_decimals(open_page):
    page = open_page()

    def legend(chart):
        return [name for name in page.locator(f"#{chart} .u-legend .u-label").all() if name.is_visible()]

    assert [name.inner_text() for name in legend("calibration")] == ["perfectly calibrated", "this network"]
    rates = [f"learning rate {rate}" for rate in (0.1, 0.2, 0.5, 0.8, 1, 2)]
    assert [name.inner_text() for name in legend("part1")] == rates
    assert [name.inner_text() for name in legend("rates")] == ["first <!--<script><b>run", "grid, mean"]
    assert not legend("curves")  # its lanes are listed beside check boxes
    assert page.evaluate("writeTicks([98.5, 99, null], false)") == ["98.5", "99.0", None]
    assert page.evaluate("writeTicks([0.015, 1, 100], true)") == ["0.015", "1", "100"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_in_both_schemes(scheme, open_page):
    page = open_page(PHONE, color_scheme=scheme, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 150) == (scheme == "dark")
    draw(page, STROKES["7"])
    assert page.inner_text("#prediction").startswith("7 ")
