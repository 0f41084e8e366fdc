"""results.json and the report: statistics, schema, ratios and comparisons. No timing is tested."""

import statistics

import numpy as np
import pytest

from benchmarks import command, machine, report, results
from tests.benchmarks.conftest import make_outcome


def test_quartiles_are_numpys():
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    found = results.spread(values)
    np.testing.assert_allclose([found[q] for q in ("q1", "median", "q3")], np.percentile(values, (25, 50, 75)))
    assert results.spread([2.0]) == {"median": 2.0, "q1": 2.0, "q3": 2.0, "iqr": 0.0, "n": 1}


def test_statistics_are_those_of_the_seconds():
    seconds = [1.0, 1.1, 0.9, 1.0, 5.0]
    found = results.statistics_of(seconds)
    assert found["data"] == seconds and found["rounds"] == 5 and found["min"] == 0.9 and found["max"] == 5.0
    assert found["stddev"] == pytest.approx(statistics.stdev(seconds))
    assert found["iqr_outliers"] == 1 and found["hd15iqr"] == 1.1  # 5.0 is beyond 1.5 inter-quartile ranges


def test_results_have_pytest_benchmarks_schema(make_results):
    found = make_results(make_outcome("a", [0.1, 0.2, 0.3]))
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version"} <= found.keys()
    assert {"affinity", "load_average", "memory_bytes", "device", "versions"} <= found["machine_info"].keys()
    assert {"node", "processor", "machine", "system", "release", "cpu"} <= found["machine_info"].keys()
    python = ("implementation", "implementation_version", "version", "compiler", "build")
    assert {f"python_{name}" for name in python} <= found["machine_info"].keys()
    assert found["machine_info"]["versions"]["numpy"] == np.__version__
    assert {"id", "time", "dirty", "branch", "project", "author_time"} <= found["commit_info"].keys()
    [entry] = found["benchmarks"]
    assert {"group", "name", "fullname", "params", "param", "extra_info", "options", "stats"} <= entry.keys()
    assert entry["stats"]["data"] == [0.1, 0.2, 0.3]
    assert entry["extra_info"]["values"] == pytest.approx([1000, 500, 1000 / 3])  # work over seconds
    assert entry["extra_info"]["value"]["median"] == pytest.approx(500)


def test_processor_is_described():
    found = machine.cpu_info()
    assert {"flags", "brand_raw", "count", "arch"} <= found.keys() and isinstance(found["flags"], list)


def test_ratio_is_to_the_best_peer_of_the_same_precision(make_results):
    entries = [
        item["extra_info"]
        for item in make_results(
            make_outcome("ours", [1.0, 2.0, 1.0]),
            make_outcome("slow peer", [4.0, 4.0, 4.0], peer=True),
            make_outcome("quick peer", [2.0, 4.0, 3.0], peer=True),
            make_outcome("bf16 peer", [0.5, 0.5, 0.5], peer=True, precision="bf16"),
        )["benchmarks"]
    ]
    peer = report.best_peers(entries)[(8, "float32")]
    assert peer["arm"] == "quick peer"
    assert report.ratio(entries[0], peer) == pytest.approx(2.0)  # of 2, 2 and 3 round by round
    assert "**2.00x** quick peer" in report.ratios(entries)


def test_fewer_seconds_are_better_where_the_benchmark_says_so(make_results):
    def entries(ours, slow, quick=2.5):
        less = {"value": "seconds", "higher_is_better": False, "unit": "s"}
        peers = (make_outcome(name, [s], peer=True, **less) for name, s in (("quick", quick), ("slow", slow)))
        return make_results(make_outcome("ours", [ours], **less), *peers)

    found = [item["extra_info"] for item in entries(2.0, 6.0)["benchmarks"]]
    assert report.best_peers(found)[(8, "float32")]["arm"] == "quick"
    assert report.ratio(found[0], found[2]) == pytest.approx(3.0)
    changes = {change.name: change for change in results.compare(entries(2.0, 6.0), entries(4.0, 3.0))}
    assert changes["benchmarks/toy.py::ours[8]"].verdict == "slower"
    assert changes["benchmarks/toy.py::slow[8]"].factor == pytest.approx(2.0)


@pytest.mark.parametrize(
    "seconds, verdict, regressions",
    [
        ([1.00, 1.00, 1.01], "same", 0),
        ([1.30, 1.31, 1.29], "slower", 1),
        ([1.05, 1.05, 1.05], "slower", 0),  # beyond the noise, within the threshold
        ([0.80, 0.80, 0.81], "faster", 0),
        ([0.70, 1.30, 2.50], "same", 0),  # a noisy machine proves nothing
    ],
)
def test_verdict_depends_on_noise_and_threshold(make_results, seconds, verdict, regressions):
    old, new = (make_results(make_outcome("a", s)) for s in ([1.0, 1.0, 1.01], seconds))
    changes = results.compare(old, new)
    assert [change.verdict for change in changes] == [verdict]
    assert len(results.regressions(changes, 0.1)) == regressions


def test_report_and_pictures_are_written(make_results, tmp_path):
    broken = make_outcome("broken", [])
    broken.not_run = "x not installed: pip install x"
    found = make_results(make_outcome("ours", [1.0]), make_outcome("peer", [2.0], peer=True), broken)
    text = command.write(tmp_path / "out", found)
    assert "**2.00x** peer" in text and "pip install x" in text
    assert text.index("ratio to the best peer") < text.index("peak memory")  # ratios first
    assert (tmp_path / "out" / "toy.png").stat().st_size > 1000
    assert results.read(tmp_path / "out" / "results.json") == found


def test_cases_are_drawn_as_lines_with_memory_below(make_results, tmp_path):
    """Bars are drawn above, where there is one case."""
    from matplotlib import image

    from benchmarks import plots

    heights = []
    for memory in (False, True):
        entries = []
        for case in (8, 16):
            pair = make_results(make_outcome("ours", [1.0, 2.0]), make_outcome("peer", [2.0], peer=True))["benchmarks"]
            entries += [{**item["extra_info"], "case": case} for item in pair]
        plots.plot(tmp_path / "a.png", "Toy", entries, memory)
        heights.append(image.imread(tmp_path / "a.png").shape[0])
    assert heights[1] > 1.5 * heights[0]
