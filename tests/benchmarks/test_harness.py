"""The benchmarks' processes: what runs, in which order, what is checked, and what happens if an arm fails."""

import os
import time

import pytest

from benchmarks import harness
from benchmarks.definitions import Arm
from benchmarks.harness import Session
from benchmarks.process import WorkerError
from tests.benchmarks.conftest import make_benchmark
from tests.benchmarks.fake_arm import ENTRY as FAKE


def test_check_refuses_other_networks():
    harness.check_size({"num_params": harness.NUM_PARAMS})
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
    with Session(make_benchmark(*arms, check=None, rounds=1), seconds=0.001) as session:
        right, small = session.run_case(8)
    assert right.not_run is None and "check failed: 7 parameters" in small.not_run


def test_arms_take_turns_and_none_fails_silently(monkeypatch, fake_reference):
    arms = (
        Arm("a", FAKE),
        Arm("b", FAKE),
        Arm("raises", FAKE, {"trouble": "raises"}),
        Arm("dies", FAKE, {"trouble": "dies"}),
        Arm("small", FAKE, {"trouble": "small"}),
        Arm("absent", FAKE, requires=("no_such_package",)),
        Arm("elsewhere", FAKE, cases=(9,)),
    )
    asked = []
    original = harness.Worker.ask

    def ask(self, what, **details):
        asked.append((what, id(self)))
        return original(self, what, **details)

    monkeypatch.setattr(harness.Worker, "ask", ask)
    with Session(make_benchmark(*arms, rounds=3), seconds=0.01) as session:
        outcomes = {outcome.arm.name: outcome for outcome in session.run_case(8)}
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
    assert reasons["absent"].endswith("pip install no_such_package")
    assert "elsewhere" not in outcomes


def test_an_arms_own_processes_do_its_work_and_end_with_it(fake_reference):
    arm = Arm("helped", "tests.benchmarks.fake_arm:with_helpers")
    with Session(make_benchmark(arm, rounds=2), seconds=0.01) as session:
        [outcome] = session.run_case(8)
        pids = outcome.ready["info"]["pids"]
        assert outcome.not_run is None and len(set(pids)) == 2
        for sample in outcome.samples:
            assert sample["work"] == 2 * 8 * outcome.ready["repeats"]
    deadline = time.monotonic() + 10
    while any(map(_runs, pids)):
        assert time.monotonic() < deadline, "they outlive their parent"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # nobody may be there to collect an ended process
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_float32_is_held_to_tf32_on_an_accelerator_only(monkeypatch, fake_reference):
    arm, seen = Arm("a", FAKE), []
    monkeypatch.setattr(harness, "check_losses", lambda ready, expected, tolerances: seen.append(tolerances))
    original = harness.Worker.ask
    for accelerated in (False, True):
        found = {"accelerated": accelerated}
        monkeypatch.setattr(
            harness.Worker, "ask", lambda self, what, found=found, **details: original(self, what, **details) | found
        )
        with Session(make_benchmark(arm, rounds=0), seconds=0.01) as session:
            session.run_case(8)
    assert seen == [harness.TOLERANCES["float32"], harness.TOLERANCES["tf32"]]


def test_peers_keep_freed_memory_and_ours_run_as_they_come(monkeypatch, fake_reference):
    for name in harness.PEERS_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    arms = [Arm("ours", FAKE), Arm("peer", FAKE, peer=True)]
    with Session(make_benchmark(*arms, rounds=0), seconds=0.01) as session:
        ours, peer = (outcome.ready["info"]["environment"] for outcome in session.run_case(8))
    assert not harness.PEERS_ENVIRONMENT.keys() & ours.keys()
    assert harness.PEERS_ENVIRONMENT.items() <= peer.items()
