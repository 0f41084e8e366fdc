"""A run's folder, a sweep's folder, and the page about both."""

import dataclasses
import json
import re
import shutil

import pytest

from jax_s6.config import RECIPES, DataConfig
from jax_s6.predict import load_model
from jax_s6.predict.model import DEFAULT_MODEL
from jax_s6.report.command import main
from jax_s6.runs.environment import environment
from jax_s6.runs.files import write_json, write_json_lines
from tests.conftest import write_idx


@pytest.fixture(scope="session")
def network():
    return load_model()


@pytest.fixture(scope="session")
def run(bars, tmp_path_factory):
    """A run's folder in the form that train writes, of two epochs on the bars, with the weights that are shipped."""
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


@pytest.fixture(scope="session")
def sweep(run, tmp_path_factory):
    """A sweep's folder in the form that sweep writes, of four lanes, of which one diverged, without weights."""
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


@pytest.fixture(scope="session")
def page_file(run, sweep, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    main([str(run), str(sweep), "--out", str(out)])
    return out


@pytest.fixture(scope="session")
def values(page_file):
    """The data in the page."""
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page_file.read_text(), re.DOTALL)
    return json.loads(text[1])
