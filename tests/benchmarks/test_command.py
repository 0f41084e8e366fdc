"""The benchmark suite's harness: what it computes, refuses and writes. No timing is judged."""

import dataclasses
import importlib
import json
import statistics
import threading

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import harness, report, results
from benchmarks.arms import work
from benchmarks.harness import Arm, Options, Outcome, Question, Session
from benchmarks.process import WorkerError
from jax_s6 import backend, cli
from jax_s6.network import net as model

FAKE = "tests.fake_arm:prepare"


def make_question(*arms: Arm, **changes) -> Question:
    return Question(**{"name": "toy", "title": "Toy", "arms": arms, "axis": "batch", "cases": (8,), **changes})


def make_outcome(name: str, seconds: list[float], **changes) -> Outcome:
    peer, precision = changes.pop("peer", False), changes.pop("precision", "float32")
    arm = Arm(name, FAKE, peer=peer, precision=precision)
    samples = [{"seconds": s, "work": 100.0, "peak_memory": {"host": 1_000_000}} for s in seconds]
    ready = {"compile_seconds": 1.5, "info": {}, "losses": [1.0], "num_params": model.NUM_PARAMS}
    return Outcome(make_question(arm, **changes), arm, 8, ready=ready, samples=samples)


@pytest.fixture
def machine(monkeypatch):
    """Spares the processes that ask for the device."""
    monkeypatch.setattr(results.machine, "device", lambda: {"platform": "cpu", "kind": "cpu", "count": 2})


def make_results(*outcomes: Outcome) -> dict:
    return json.loads(json.dumps(results.to_json(outcomes, {"rounds": 3})))


def test_quartiles_are_numpys():
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    np.testing.assert_allclose(results.quartiles(values), np.percentile(values, (25, 50, 75)))
    assert results.quartiles([2.0]) == (2.0, 2.0, 2.0)


def test_statistics_are_those_of_the_seconds():
    seconds = [1.0, 1.1, 0.9, 1.0, 5.0]
    found = results.statistics_of(seconds)
    assert found["data"] == seconds and found["rounds"] == 5 and found["min"] == 0.9 and found["max"] == 5.0
    assert found["stddev"] == pytest.approx(statistics.stdev(seconds))
    assert found["iqr_outliers"] == 1 and found["hd15iqr"] == 1.1  # 5.0 is beyond 1.5 inter-quartile ranges


def test_results_have_pytest_benchmarks_schema(machine):
    found = make_results(make_outcome("a", [0.1, 0.2, 0.3]))
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version"} <= found.keys()
    assert {"flags", "brand_raw", "count"} <= found["machine_info"]["cpu"].keys()
    assert {"affinity", "load_average", "memory_bytes", "device", "versions"} <= found["machine_info"].keys()
    assert {"id", "time", "dirty", "branch", "project", "author_time"} <= found["commit_info"].keys()
    [entry] = found["benchmarks"]
    assert {"group", "name", "fullname", "params", "param", "extra_info", "options", "stats"} <= entry.keys()
    assert entry["stats"]["data"] == [0.1, 0.2, 0.3]
    assert entry["extra_info"]["values"] == pytest.approx([1000, 500, 1000 / 3])  # work over seconds
    assert entry["extra_info"]["value"]["median"] == pytest.approx(500)


def test_ratio_is_to_the_best_peer_of_the_same_precision(machine):
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


def test_fewer_seconds_are_better_where_the_question_says_so(machine):
    def entries(ours, theirs):
        less = {"value": "seconds", "higher_is_better": False, "unit": "s"}
        pair = make_outcome("ours", [ours], **less), make_outcome("peer", [theirs], peer=True, **less)
        return make_results(*pair)

    ours, peer = (item["extra_info"] for item in entries(2.0, 6.0)["benchmarks"])
    assert report.ratio(ours, peer) == pytest.approx(3.0)
    changes = {change.name: change for change in results.compare(entries(2.0, 6.0), entries(4.0, 3.0))}
    assert changes["benchmarks/toy.py::ours[8]"].verdict == "slower"
    assert changes["benchmarks/toy.py::peer[8]"].factor == pytest.approx(2.0)


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
def test_change_is_judged_by_noise_and_threshold(machine, seconds, verdict, regressions):
    old, new = (make_results(make_outcome("a", s)) for s in ([1.0, 1.0, 1.01], seconds))
    changes = results.compare(old, new)
    assert [change.verdict for change in changes] == [verdict]
    assert len(results.regressions(changes, 0.1)) == regressions


def test_check_refuses_other_networks():
    harness.check_size({"num_params": model.NUM_PARAMS})
    with pytest.raises(WorkerError, match="check failed: 1 parameters"):
        harness.check_size({"num_params": 1})
    harness.check_losses({"losses": [2.0001, 1.501]}, [2.0, 1.5], (1e-4, 2e-3))
    harness.check_losses({"losses": [2.0]}, [2.0, 1.5], (1e-4, 2e-3))  # an arm that only predicts
    for wrong in ([2.001, 1.5], [2.0, 1.51], [float("nan")]):
        with pytest.raises(WorkerError, match="check failed"):
            harness.check_losses({"losses": wrong}, [2.0, 1.5], (1e-4, 2e-3))
    with pytest.raises(WorkerError, match="no loss"):
        harness.check_losses({"losses": []}, [2.0, 1.5], (1e-4, 2e-3))


def test_size_is_checked_where_losses_are_not():
    arms = (Arm("right", FAKE), Arm("small", FAKE, {"trouble": "small"}))
    with Session(make_question(*arms, check=None), Options(rounds=1, seconds=0.001)) as session:
        right, small = session.run_case(arms, 8)
    assert right.not_run is None and "check failed: 7 parameters" in small.not_run


def test_arms_take_turns_and_none_fails_silently(monkeypatch):
    arms = (
        Arm("a", FAKE),
        Arm("b", FAKE),
        Arm("raises", FAKE, {"trouble": "raises"}),
        Arm("dies", FAKE, {"trouble": "dies"}),
        Arm("small", FAKE, {"trouble": "small"}),
        Arm("absent", FAKE, requires={"no_such_module": "no-such-package"}),
        Arm("elsewhere", FAKE, cases=(9,)),
    )
    monkeypatch.setattr(harness, "reference_losses", lambda batch, kind: [1.0, 0.5])
    asked = []
    original = harness.Worker.ask

    def ask(self, what, **details):
        asked.append((what, id(self)))
        return original(self, what, **details)

    monkeypatch.setattr(harness.Worker, "ask", ask)
    with Session(make_question(*arms), Options(rounds=3, seconds=0.01)) as session:
        outcomes = {outcome.arm.name: outcome for outcome in session.run_case(arms, 8)}
    turns = [worker for what, worker in asked if what == "sample"]
    assert len(set(turns)) == 2 and turns == turns[:2] * 3  # a b a b a b
    for name in "ab":
        assert len(outcomes[name].values) == 3 and outcomes[name].not_run is None
        for sample in outcomes[name].samples:  # each sample is filled up, and its work counted
            assert sample["work"] == 8 * outcomes[name].ready["repeats"] and sample["seconds"] > 1e-3
    reasons = {name: outcome.not_run or "" for name, outcome in outcomes.items()}
    assert reasons["raises"] == "ValueError: no such thing"
    assert "ended with status 3" in reasons["dies"]
    assert "check failed: 7 parameters" in reasons["small"]
    assert reasons["absent"].endswith("pip install no-such-package")
    assert "elsewhere" not in outcomes


def test_list_names_every_question_and_what_to_install(monkeypatch, capsys):
    absent = dataclasses.replace(command.load("predict").arms[-1], requires={"no_such_module": "onnxruntime"})
    monkeypatch.setattr(command, "load", lambda name: make_question(absent, name=name))
    command.main(["--list"])
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in command.NAMES)
    assert "not run, onnxruntime not installed: pip install onnxruntime" in printed


def test_every_question_loads_and_its_arms_have_distinct_names():
    for name in command.NAMES:
        question = command.load(name)
        assert question.name == name and question.cases
        assert len({arm.name for arm in question.arms}) == len(question.arms)
        for arm in question.arms:
            assert set(arm.cases or ()) <= set(question.cases), arm.name


@pytest.mark.parametrize("cores", [1, 4])
def test_pytorch_gets_all_cores(monkeypatch, cores):
    questions = {name: importlib.import_module(f"benchmarks.{name}") for name in ("train_step", "sweep")}
    with monkeypatch.context() as patch:
        patch.setattr(backend, "cores", lambda: cores)
        arms = [arm for module in questions.values() for arm in importlib.reload(module).QUESTION.arms]
    for module in questions.values():
        importlib.reload(module)
    settings = [arm.settings for arm in arms if arm.name.startswith("PyTorch") and "graph" not in arm.name]
    assert {found["threads"] for found in settings if "threads" in found} == {1, cores}
    assert {found["processes"] for found in settings if "processes" in found} == {cores}


def test_quick_has_a_short_form_of_what_matters():
    chosen = {s.question.name: s for s in command.select(command.Command(quick=True)) if s.cases and s.arms}
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


def test_compare_exits_with_1_on_a_regression_only(machine, tmp_path, capsys):
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


def test_report_and_pictures_are_written(machine, tmp_path):
    broken = make_outcome("broken", [])
    broken.not_run = "x not installed: pip install x"
    found = make_results(make_outcome("ours", [1.0]), make_outcome("peer", [2.0], peer=True), broken)
    text = command.write(tmp_path / "out", found)
    assert "**2.00x** peer" in text and "pip install x" in text
    assert text.index("times the best peer") < text.index("peak memory")  # ratios first
    assert (tmp_path / "out" / "toy.png").stat().st_size > 1000
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found


def test_a_stop_loses_no_earlier_case(machine, monkeypatch, tmp_path):
    arms = (Arm("a", FAKE),)
    monkeypatch.setattr(harness, "reference_losses", lambda batch, kind: [1.0, 0.5])
    run_case = Session.run_case

    def stopped_at_9(self, arms, case):
        if case == 9:
            assert len(json.loads(file.read_text())["benchmarks"]) == 1
            raise KeyboardInterrupt
        assert file.read_text() == "of an earlier run"
        return run_case(self, arms, case)

    monkeypatch.setattr(Session, "run_case", stopped_at_9)
    file = tmp_path / "results.json"
    file.write_text("of an earlier run")
    with pytest.raises(KeyboardInterrupt):
        selection = command.Selection(make_question(*arms), arms, (8, 9), 1)
        command.measure(command.Command(out=tmp_path), [selection])
    assert [item["param"] for item in json.loads(file.read_text())["benchmarks"]] == ["8"]


def test_arms_are_chosen_by_whole_names_and_by_parts():
    arms = [Arm(name, FAKE) for name in ("ours", "ours bf16", "peer bf16")]
    chosen = {given: [arm.name for arm in command.named(arms, [given])] for given in ("ours", "bf16", "our", "x")}
    assert chosen == {"ours": ["ours"], "bf16": ["ours bf16", "peer bf16"], "our": ["ours", "ours bf16"], "x": []}
    assert command.named(arms, []) == arms


def test_float32_is_held_to_tf32_on_an_accelerator_only(monkeypatch):
    arm, seen = Arm("a", FAKE), []
    monkeypatch.setattr(harness, "reference_losses", lambda batch, kind: [1.0, 0.5])
    monkeypatch.setattr(harness, "check_losses", lambda ready, expected, tolerances: seen.append(tolerances))
    original = harness.Worker.ask
    for accelerated in (False, True):
        found = {"accelerated": accelerated}
        monkeypatch.setattr(
            harness.Worker, "ask", lambda self, what, found=found, **details: original(self, what, **details) | found
        )
        with Session(make_question(arm), Options(rounds=0, seconds=0.01)) as session:
            session.run_case([arm], 8)
    assert seen == [harness.TOLERANCES["float32"], harness.TOLERANCES["tf32"]]


def test_peers_keep_freed_memory_and_ours_run_as_they_come(monkeypatch):
    for name in harness.PEERS_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(harness, "reference_losses", lambda batch, kind: [1.0, 0.5])
    arms = [Arm("ours", FAKE), Arm("peer", FAKE, peer=True)]
    with Session(make_question(*arms), Options(rounds=0, seconds=0.01)) as session:
        ours, peer = (outcome.ready["info"]["environment"] for outcome in session.run_case(arms, 8))
    assert not harness.PEERS_ENVIRONMENT.keys() & ours.keys()
    assert harness.PEERS_ENVIRONMENT.items() <= peer.items()


def test_inputs_are_the_models():
    assert (work.MEAN, work.STD) == (model.MEAN, model.STD)
    sizes = {name: array.size for name, array in work.state_dict().items() if "running" not in name}
    assert sum(sizes.values()) == harness.NUM_PARAMS == model.NUM_PARAMS


def test_operations_of_a_trace_add_up(tmp_path):
    import jax
    import jax.numpy as jnp

    from benchmarks.arms import roofline as roofline_arms

    product = jax.jit(lambda x: jnp.tanh(x @ x) @ x)
    x = jnp.ones((256, 256))
    product(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        product(x).block_until_ready()
    rows = roofline_arms.operations(str(tmp_path))
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert rows[0]["seconds"] > 0 and rows[0]["count"] >= 1 and len(rows) <= roofline_arms.TOP + 1


@pytest.mark.torch
def test_reference_losses_are_pytorchs_in_float64():
    torch = pytest.importorskip("torch")
    import jax

    from benchmarks.arms import lax as lax_arms
    from tests.parity.reference import Net

    torch.set_num_threads(1)  # the test run has a worker a core
    net = Net().double()
    net.load_state_dict({k: torch.from_numpy(v).double() for k, v in work.state_dict().items()}, strict=False)
    images, labels = work.digits(16)
    x = torch.from_numpy(((images.astype(np.float64) / 255 - work.MEAN) / work.STD).transpose(0, 3, 1, 2).copy())
    optimizer, want = torch.optim.SGD(net.parameters(), work.LEARNING_RATE, work.MOMENTUM), []
    for _ in range(2):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net.train()(x), torch.from_numpy(labels).long())
        loss.backward()
        optimizer.step()
        want.append(float(loss.detach()))
    with jax.enable_x64(True):
        np.testing.assert_allclose(lax_arms.reference(batch=16, kind="train").losses, want, rtol=1e-9)


def test_our_arm_has_the_reference_losses():
    """The check that the suite makes before it times ours."""
    import jax

    from benchmarks.arms import lax as lax_arms
    from benchmarks.arms import ours
    from jax_s6.training import trainer as loop

    with jax.enable_x64(True):
        want = lax_arms.reference(batch=64, kind="train").losses
    mesh = loop.make_mesh(jax.devices()[:1])
    for precision, augmented in (("float32", True), ("bf16", False)):
        losses = ours.check_losses(ours.make_config(64, precision, augmented=augmented), mesh)
        harness.check_losses({"losses": losses}, want, harness.TOLERANCES[precision])


@pytest.mark.torch
def test_pytorchs_modes(monkeypatch):
    torch = pytest.importorskip("torch")
    from benchmarks.arms import torch_step as torch_arms

    monkeypatch.setattr(torch, "compile", lambda function: "compiled")  # importing its compiler takes seconds
    for mode in ("eager", "compiled", "eager graph", "compiled graph"):
        trainer = torch_arms.make_trainer(mode, "contiguous", "float32")
        assert type(trainer) is (torch_arms.GraphTrainer if "graph" in mode else torch_arms.Trainer)
        assert (trainer._loss == "compiled") == ("compiled" in mode)


def test_recipe_that_pytorch_lacks_is_refused():
    from benchmarks.arms import recipes
    from jax_s6.config import OptimizerConfig, TrainConfig

    recipes.require_torch_can(recipes.QUALITY)
    recipes.require_torch_can(recipes.named("best"))
    with pytest.raises(ValueError, match="decay_rate"):
        recipes.require_torch_can(TrainConfig(optimizer=OptimizerConfig(decay_rate=0.3)))


@pytest.mark.torch
def test_warps_of_both_frameworks_are_alike():
    """Not the same draws, but the same distribution: the mean image, and how far images scatter about it."""
    import jax
    import torch

    from benchmarks.arms import recipe_torch, recipes
    from jax_s6.config import RECIPES, AugmentConfig, Hyperparameters
    from jax_s6.training.augmentation import augment

    torch.set_num_threads(1)
    torch.manual_seed(0)
    strengths = AugmentConfig(rotation=20.0, shift=3.0, scale=0.2, shear=10.0, elastic=1.5, anneal_fraction=0.5)
    halved = recipes.annealed(strengths, 0.75)
    assert (halved.rotation, halved.elastic, halved.anneal_fraction) == (10.0, 0.75, 0.5)
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[0, 6:22, 12:16] = 255
    images = np.repeat(image, 3000, 0)
    hyper = Hyperparameters.of(dataclasses.replace(RECIPES["best"], augment=strengths))
    ours = np.asarray(augment(jax.random.split(jax.random.key(0), 3000), images, hyper))[..., 0] / 255
    x, _ = recipe_torch.tensors(images, np.zeros(3000, np.int32))
    theirs = recipe_torch.warp(x, strengths).numpy()[:, 0] * work.STD + work.MEAN
    np.testing.assert_allclose(theirs.mean(0), ours.mean(0), atol=0.06)
    assert theirs.std(0).mean() == pytest.approx(ours.std(0).mean(), rel=0.05)


def test_rates_of_both_frameworks_are_the_same():
    import jax.numpy as jnp

    from benchmarks.arms import recipes
    from jax_s6.config import Hyperparameters
    from jax_s6.training import optimizers as optim

    hyper = Hyperparameters.of(recipes.QUALITY)
    for schedule in ("constant", "cosine", "linear", "warmup_cosine", "one_cycle"):
        optimizer = dataclasses.replace(recipes.QUALITY.optimizer, schedule=schedule)
        for progress in (0.0, 0.1, 0.5, 0.9):
            want = optim.relative_rate(schedule, hyper, jnp.float32(progress), jnp.float32(0))
            assert recipes.relative_rate(optimizer, progress) == pytest.approx(float(want), rel=1e-5, abs=1e-6)


def test_our_lanes_share_batches_over_the_devices_that_an_arm_names():
    from benchmarks.arms import ours

    digits = np.zeros((64, 28, 28, 1), np.uint8), np.zeros(64, np.int32)

    def devices(number: int | None) -> int:
        config = ours.make_config(64, "float32")
        return len(ours.group_trainer(config, [0.01], digits, number, None).arrangement.devices)

    assert [devices(None), devices(1), devices(2)] == [1, 1, 2]


def test_a_sweep_is_traced(tmp_path, monkeypatch):
    from benchmarks.arms import ours
    from benchmarks.arms import roofline as roofline_arms

    monkeypatch.setattr(ours, "check_losses", lambda *_: [])  # another program to compile
    task = ours.sweep(lanes=2, batch=16, images=16)
    assert task.profile is not None
    task.profile(str(tmp_path))
    assert roofline_arms.operations(str(tmp_path))


def test_each_thread_reads_what_its_neighbour_wrote(monkeypatch):
    from benchmarks.arms import roofline as roofline_arms

    wrote, read = {}, []

    class Spy(np.ndarray):
        def fill(self, value):
            wrote[threading.get_ident()] = self.ctypes.data
            super().fill(value)

        def max(self, *args, **kwargs):
            whose = next(thread for thread, address in wrote.items() if address == self.ctypes.data)
            read.append((float(self[0]), whose == threading.get_ident()))  # no assertion: others wait for this thread
            return super().max(*args, **kwargs)

    monkeypatch.setattr(roofline_arms.backend, "cores", lambda: 3)
    monkeypatch.setattr(roofline_arms.np, "ones", lambda shape, dtype: np.full(shape, -1, dtype).view(Spy))
    task = roofline_arms.exchange(batch=64)
    assert task.run(2)["seconds"] > 0 and task.work == pytest.approx(3 * 4 * 2**20 / 1e9)
    assert read == [(0.0, False)] * 3 + [(1.0, False)] * 3, "what others wrote, when all have written"
