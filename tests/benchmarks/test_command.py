"""``python -m benchmarks``: what it runs, lists, compares and refuses."""

import dataclasses
import importlib
import json

import pytest

from benchmarks import command
from benchmarks.definitions import Arm
from benchmarks.harness import Session
from jax_s6 import backend, cli
from tests.benchmarks.conftest import make_benchmark, make_outcome
from tests.benchmarks.fake_arm import ENTRY as FAKE


def test_list_names_every_benchmark_and_what_to_install(monkeypatch, capsys):
    absent = dataclasses.replace(command.load("predict").arms[-1], requires=("no_such_package",))
    monkeypatch.setattr(command, "load", lambda name: make_benchmark(absent, name=name))
    command.main(["--list"])
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in command.NAMES)
    assert "not run, no_such_package not installed: pip install no_such_package" in printed


def test_every_benchmark_loads_and_its_arms_have_distinct_names():
    for name in command.NAMES:
        benchmark = command.load(name)
        assert benchmark.name == name and benchmark.cases
        assert len({arm.name for arm in benchmark.arms}) == len(benchmark.arms)
        for arm in benchmark.arms:
            assert set(arm.cases or ()) <= set(benchmark.cases), arm.name


@pytest.mark.parametrize("cores", [1, 4])
def test_pytorch_gets_all_cores(monkeypatch, cores):
    modules = [importlib.import_module(f"benchmarks.questions.{name}") for name in ("train_step", "sweep")]
    with monkeypatch.context() as patch:
        patch.setattr(backend, "cores", lambda: cores)
        arms = [arm for module in modules for arm in importlib.reload(module).BENCHMARK.arms]
    for module in modules:
        importlib.reload(module)
    settings = [arm.settings for arm in arms if arm.name.startswith("PyTorch") and "graph" not in arm.name]
    assert {found["threads"] for found in settings if "threads" in found} == {1, cores}
    assert {found["processes"] for found in settings if "processes" in found} == {cores}


def test_quick_has_a_short_form_of_what_matters():
    chosen = {b.name: b for b in command.select(command.Command(quick=True)) if b.cases and b.arms}
    assert {"train_step", "sweep", "epoch", "predict"} <= chosen.keys()
    assert any(arm.peer for arm in chosen["sweep"].arms) and any(not arm.peer for arm in chosen["sweep"].arms)


@pytest.mark.parametrize(
    "args, message",
    [
        (["no_such"], "there is no benchmark 'no_such'"),
        (["--threshold", "2"], "threshold must be >= 0 and <= 1, got 2"),
        (["--rounds", "0"], "rounds must be >= 1, got 0"),
        (["sweep", "--arms", "nobody"], "leave nothing to run"),
        (["--compare", "absent.json"], "absent.json cannot be read"),
        (["--no-such-flag"], "--help"),
    ],
)
def test_bad_arguments_end_in_a_sentence(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: command.main(args))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": [{}]}', "\x00"])
def test_files_that_are_no_results_end_in_a_sentence(text, tmp_path, capsys):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: command.main(["--compare", str(path)]))
    assert stop.value.code == 2 and "is not a results.json" in capsys.readouterr().err


def test_compare_exits_with_1_on_a_regression_only(make_results, tmp_path, capsys):
    paths = []
    for name, seconds in (("old", [1.0, 1.0, 1.0]), ("new", [1.5, 1.5, 1.5])):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(make_results(make_outcome("a", seconds))))
    command.main(["--results", str(paths[0]), "--compare", str(paths[1])])  # faster
    assert "1.50x  faster" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        command.main(["--results", str(paths[1]), "--compare", str(paths[0])])
    assert stop.value.code == 1 and "regression: benchmarks/toy.py::a[8]: 0.67x" in capsys.readouterr().err
    command.main(["--results", str(paths[1]), "--compare", str(paths[0]), "--threshold", "0.4"])


def test_a_stop_loses_no_earlier_case(make_results, monkeypatch, tmp_path, fake_reference):
    run_case = Session.run_case

    def stopped_at_9(self, case):
        if case == 9:
            assert len(json.loads(file.read_text())["benchmarks"]) == 1
            raise KeyboardInterrupt
        assert file.read_text() == "of an earlier run"
        return run_case(self, case)

    monkeypatch.setattr(Session, "run_case", stopped_at_9)
    file = tmp_path / "results.json"
    file.write_text("of an earlier run")
    with pytest.raises(KeyboardInterrupt):
        benchmark = make_benchmark(Arm("a", FAKE), cases=(8, 9), rounds=1)
        command.measure(command.Command(out=tmp_path), [benchmark])
    assert [item["param"] for item in json.loads(file.read_text())["benchmarks"]] == ["8"]


def test_arms_are_chosen_by_whole_names_and_by_parts():
    arms = [Arm(name, FAKE) for name in ("ours", "ours bf16", "peer bf16")]
    chosen = {given: [arm.name for arm in command.named(arms, [given])] for given in ("ours", "bf16", "our", "x")}
    assert chosen == {"ours": ["ours"], "bf16": ["ours bf16", "peer bf16"], "our": ["ours", "ours bf16"], "x": []}
    assert command.named(arms, []) == arms
