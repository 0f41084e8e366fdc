"""The report: its data are right, and in a real browser it draws, answers, and works by keyboard and on a phone."""

import base64
import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from jax_s6 import cli, data
from jax_s6.config import RECIPES, DataConfig
from jax_s6.network import net as model
from jax_s6.predict import digit as predict_digit
from jax_s6.predict import pictures as predict_images
from jax_s6.predict.command import load_model
from jax_s6.predict.model import DEFAULT_MODEL
from jax_s6.report import command as report_page
from jax_s6.report import evaluation as report_judge
from jax_s6.report import folder as report_folder
from jax_s6.runs.environment import environment
from jax_s6.runs.files import write_json, write_json_lines
from tests.conftest import write_idx

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESK = {"width": 375, "height": 800}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def network():
    return load_model()


@pytest.fixture(scope="module")
def run(bars, tmp_path_factory):
    """A run's folder in the form that train writes, of two epochs on the bars, with the shipped weights."""
    idx, out = tmp_path_factory.mktemp("idx"), tmp_path_factory.mktemp("runs") / "first <!--<script><b>run"
    for prefix, part in (("train", "train"), ("t10k", "test")):
        write_idx(idx / f"{prefix}-images-idx3-ubyte", getattr(bars, f"{part}_images")[..., 0])
        write_idx(idx / f"{prefix}-labels-idx1-ubyte", getattr(bars, f"{part}_labels"))
    out.mkdir()
    config = dataclasses.replace(RECIPES["best"], num_epochs=2, data=DataConfig(data_dir=idx))
    history = [{"epoch": e, "train_loss": 1 / e, "test_loss": 2 / e, "test_accuracy": 0.35 * e} for e in (1, 2)]
    counts = {"seed": 0, "num_params": 11_952, "num_epochs": 2, "diverged_at": None}
    summary = {**counts, "test_accuracy": 0.7, "config": dataclasses.asdict(config), **environment()}
    write_json_lines(out / "metrics.jsonl", history)
    write_json(out / "summary.json", summary)
    shutil.copy(DEFAULT_MODEL, out / "params.safetensors")
    return out


@pytest.fixture(scope="module")
def sweep(run, tmp_path_factory):
    """A sweep's folder of four lanes, one diverged, in the form that sweep_command writes."""
    out = tmp_path_factory.mktemp("sweeps") / "grid"
    out.mkdir()
    columns = "lane,learning_rate,seed,test_loss,test_accuracy,diverged_at\n"
    lines = ["0,0.1,0,0.3,0.91,\n", "1,0.1,1,0.3,0.93,\n", "2,0.5,0,0.2,0.95,\n", "3,2.0,0,nan,0.1,7\n"]
    (out / "sweep.csv").write_text(columns + "".join(lines))
    rows = [f"{lane},{epoch},{1 / epoch},{0.1 * epoch}\n" for lane in range(4) for epoch in (1, 2)]
    (out / "history.csv").write_text("lane,epoch,test_loss,test_accuracy\n" + "".join(rows))
    summary = json.loads((run / "summary.json").read_text())
    summary |= {"grid": {"learning_rate": [0.1, 0.5, 2.0], "seed": [0, 1]}, "num_lanes": 4}
    best = {"lane": 2, "learning_rate": 0.5, "seed": 0, "num_epochs": 2, "test_accuracy": 0.95}
    (out / "summary.json").write_text(json.dumps(summary | {"best_lane": best}))
    return out


@pytest.fixture(scope="module")
def page_file(run, sweep, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    report_page.main([str(run), str(sweep), "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def values(page_file):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page_file.read_text(), re.DOTALL)
    return json.loads(text[1])


def test_the_page_is_one_small_file_without_links(page_file):
    text = page_file.read_text()
    assert len(text.encode()) < 5_000_000 and "{{" not in text.split("<script>")[0]
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", text) and "url(" not in text
    assert "Permission is hereby granted" in (report_page.ASSETS / "uPlot.LICENSE").read_text()


def test_judgements_are_those_of_the_network(values, network, bars):
    judged, answers = values["models"][0], network.predict(bars.test_images)
    confusion = np.array(judged["confusion"])
    assert confusion.sum() == 130 and np.trace(confusion) == (answers == bars.test_labels).sum()
    assert confusion[3, answers[3]] >= 1 and judged["num_mistakes"] == (answers != bars.test_labels).sum()
    confidences = [mistake["probability"] for mistake in judged["mistakes"]]
    assert confidences == sorted(confidences, reverse=True) and len(confidences) == 30
    image = np.frombuffer(base64.b64decode(judged["mistakes"][0]["image"]), np.uint8).reshape(28, 28)
    assert network.predict(image)[0] == judged["mistakes"][0]["answer"] != judged["mistakes"][0]["label"]


def test_calibration_by_hand():
    bins, ece = report_judge.calibration(np.array([0.95, 1.0, 0.55, 0.59]), np.array([True, False, True, True]))
    assert bins == [
        {"confidence": 0.57, "accuracy": 1.0, "count": 2}, {"confidence": 0.975, "accuracy": 0.5, "count": 2}
    ]  # fmt: skip
    assert ece == pytest.approx((0.43 + 0.475) / 2)


def test_layers_agree_with_the_module_and_receptive_fields_with_gradients(network):
    rows = report_judge.layer_rows(network)
    for name, _, shape, _ in model.layer_table():
        height, width, channels = (shape.split("x") + ["", ""])[:3] if "x" in shape else (shape, "", "")
        last = [row for row in rows if row[0] == name][-1]
        assert last[2] == (f"{height}x{width}x{channels}" if width else shape)
    assert rows[-1][-1] == "11,952" and sum(int(row[-1].replace(",", "")) for row in rows[:-1]) == 11_952
    # After conv2's first convolution a pixel sees 15x15 of the image: nothing outside changes it, its corners do.
    assert [row[3] for row in rows][:4] == ["3x3", "5x5", "7x7", "15x15"]

    def pixel(images):
        seen = model.Net().apply(network.variables, images, capture_intermediates=True, mutable=True)[1]
        return seen["intermediates"]["conv2"]["conv_0"]["__call__"][0][:, 3, 3].sum()

    images = data.load(DataConfig(data_dir=data.EMBEDDED)).test_images[:16].astype(np.float32)
    gradient = np.abs(jax.jit(jax.grad(pixel))(images))[..., 0].sum(0)
    rows_seen, columns_seen = (np.flatnonzero(gradient.any(axis)) for axis in (1, 0))
    assert np.ptp(rows_seen) + 1 == np.ptp(columns_seen) + 1 == 15


def test_a_sweeps_folder_gives_lanes_and_results(sweep):
    folder = report_folder.read_folder(sweep)
    assert [lane["label"] for lane in folder.lanes][:2] == ["rate 0.1, seed 0", "rate 0.1, seed 1"]
    assert folder.lanes[0]["metrics"] == {"test_loss": [1.0, 0.5], "test_accuracy": [0.1, 0.2]}
    assert [result["diverged"] for result in folder.results] == [False, False, False, True]
    assert folder.config.optimizer.learning_rate == 0.5 and folder.summary["test_accuracy"] == 0.95


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "dirs must name at least one folder"),
        (["/nonexistent"], "does not exist"),
        (["{tmp}"], "has no summary.json"),
        (["{tmp}/broken"], "cannot be read"),
        (["{tmp}/list"], "cannot be read"),
        (["{run}", "--out", "{tmp}"], "out must be a file"),
        (["{run}", "--out", "/proc/none/x.html"], "cannot be written to"),
        (["{run}", "--out", "{tmp}/list/summary.json"], "is not an HTML page"),
        (["{tmp}/cut"], "history.csv and sweep.csv have other lanes"),
        (["{sweep}"], "no params.safetensors"),
    ],
)
def test_bad_input_is_one_sentence(args, message, run, sweep, tmp_path, capsys):
    for name, text in (("broken", "{"), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
    shutil.copytree(sweep, tmp_path / "cut")
    (tmp_path / "cut" / "history.csv").write_text("lane,epoch\n")
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: report_page.main([a.format(tmp=tmp_path, run=run, sweep=sweep) for a in args]))
    printed = capsys.readouterr()
    assert stop.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1 and message in printed.err


# --- in a browser ---


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
    """Opens the page offline, and at the end finds that it logged no error."""
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


@pytest.mark.chromium
def test_the_pages_network_is_jaxs_on_100_images(open_page, network):
    images = data.load(DataConfig(data_dir=data.EMBEDDED)).test_images[:100]
    page = open_page()
    logits = page.evaluate(
        "images => images.map((image) => forward(image, layers, report.mean, report.std))",
        images.reshape(100, 784).tolist(),
    )
    np.testing.assert_allclose(logits, network.logits(images), atol=1e-4)
    assert sum(1 for line in (report_page.ASSETS / "network.js").read_text().splitlines()) < 80


@pytest.mark.chromium
@pytest.mark.parametrize("digit", STROKES)
def test_a_drawing_gets_the_answer_that_predict_gives(digit, open_page, network, tmp_path):
    page = open_page()
    draw(page, STROKES[digit])
    seen, probabilities = page.evaluate(
        "() => { const d = toDigit(inkOnPaper(), 280, 280); return [Array.from(d), probabilitiesOf(d)]; }"
    )
    ink = np.array(page.evaluate("Array.from(inkOnPaper())"), np.float32).reshape(280, 280)
    Image.fromarray(np.round(255 * (1 - ink)).astype(np.uint8)).save(path := tmp_path / "drawing.png")
    image = predict_images.read_digit(path)
    assert np.abs(np.reshape(seen, (28, 28)) - image.astype(int)).max() <= 3
    expected = network.predict_proba(image)[0]
    np.testing.assert_allclose(probabilities, expected, atol=0.01)
    shown = page.inner_text("#answer")
    assert shown.startswith(f"{expected.argmax()} ") and shown.startswith(digit)
    assert page.locator("#bars li").count() == 10
    page.click("#wipe")
    assert page.inner_text("#answer") == "The answer appears here."


@pytest.mark.chromium
def test_the_keyboard_draws_reads_charts_and_picks_lanes(open_page):
    page = open_page()
    page.focus("#paper")
    for _ in range(17):
        page.keyboard.press("ArrowDown")
    assert page.inner_text("#answer").startswith("1 ")
    page.keyboard.press("Delete")
    assert page.inner_text("#answer") == "The answer appears here."
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


@pytest.mark.chromium
def test_hover_shows_values_and_sections_are_filled(open_page):
    page = open_page()
    page.locator("#rates").scroll_into_view_if_needed()
    page.hover("#rates .u-over")
    assert "final test accuracy" in page.get_attribute("#rates", "aria-label")
    assert re.search(r"learning rate [\d.]+\n(.+, mean: \d|grid, lane: \d)", page.inner_text("#rates .tip"))
    assert "Diverged and not shown: 1 at 2." in page.inner_text("#lost")
    counts = {"#confusion tbody tr": 10, "#mistakes figure": 30, "#filters canvas": 16, "#score tbody tr": 6}
    assert {name: page.locator(name).count() for name in counts} == counts
    assert page.locator("#lanes label").first.inner_text() == "first <!--<script><b>run"


@pytest.mark.chromium
def test_lines_are_named_and_numbers_have_the_same_decimals(open_page):
    page = open_page()

    def legend(chart):
        return [name for name in page.locator(f"#{chart} .u-legend .u-label").all() if name.is_visible()]

    assert [name.inner_text() for name in legend("calibration")] == ["perfect", "accuracy"]
    assert [name.inner_text() for name in legend("part1")] == [f"rate {rate}" for rate in (0.1, 0.2, 0.5, 0.8, 1, 2)]
    assert [name.inner_text() for name in legend("rates")] == ["first <!--<script><b>run, mean", "grid, mean"]
    assert not legend("curves")  # its lanes are listed beside boxes
    assert page.evaluate("writeTicks([98.5, 99, null], false)") == ["98.5", "99.0", None]
    assert page.evaluate("writeTicks([0.015, 1, 100], true)") == ["0.015", "1", "100"]


@pytest.mark.chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_in_both_schemes(scheme, open_page):
    page = open_page(PHONE, color_scheme=scheme, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 150) == (scheme == "dark")
    draw(page, STROKES["7"])
    assert page.inner_text("#answer").startswith("7 ")


def test_the_drawings_box_is_the_predictions(network):
    # Both sides name these numbers; the page's file must not go its own way.
    script = (report_page.ASSETS / "network.js").read_text()
    assert f"> {predict_digit.MIN_INK}" in script and f"{predict_digit.BOX} / Math.max" in script
