"""``python -m benchmarks offline``: how it reads compiled programs, what it refuses, and the real compilers."""

import json

import pytest

from benchmarks import command as benchmarks
from benchmarks.offline import command, estimates, measured, programs, targets
from benchmarks.offline.worker import ENTRY, estimate
from benchmarks.process import Worker, WorkerError
from jax_s6 import backend, cli
from jax_s6.config import ModelConfig

TPU = """HloModule jit_train
%inner_body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.1 = f32[8]{0:T(128)S(1)} fusion(%p), kind=kLoop, calls=%parts, backend_config={"estimated_cycles":"10"}
}
%inner_condition (q: (s32[], f32[8])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(3)
}
%parts (r: f32[8]) -> f32[8] {
  %a = f32[8]{0} multiply(%r, %r), metadata={op_name="jit(_train)/while/body/transpose(jvp(Net))/conv2/norm_1/mul"}
}
%likely (s: f32[8]) -> f32[8] {
  %copy.1 = f32[8]{0} copy(%s), backend_config={"estimated_cycles":"40"}
}
%unlikely (t: f32[8]) -> f32[8] {
  %copy.2 = f32[8]{0} copy(%t), backend_config={"estimated_cycles":"7"}
}
%step (u: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.2 = (f32[2]{0:T(8,128)}, /*index=1*/f32[8]{0}) fusion(%u), kind=kOutput, calls=%none, \
metadata={op_name="jit(_train)/jvp(Net)/conv1/conv_0/dot_general"}, backend_config={"estimated_cycles":"100"}
  %while.1 = (s32[], f32[8]{0}) while(%x), condition=%inner_condition, body=%inner_body
  %conditional.1 = f32[8]{0} conditional(%i, %y, %y), branch_computations={%likely, %unlikely}
  %tuple.1 = (s32[]) tuple(%z)
}
ENTRY %main (v: f32[8]) -> f32[8] {
  %copy.3 = f32[8]{0} copy(%v), backend_config={"estimated_cycles":"5000"}
  %while.2 = (s32[], f32[8]{0}) while(%w), condition=%c, body=%step, backend_config={"known_trip_count":{"n":"9"}}
  %while.3 = (s32[], f32[8]{0}) while(%w), condition=%c, body=%likely, backend_config={"known_trip_count":{"n":"99"}}
}
"""
GPU = """HloModule jit_train
%gathers (p0: u8[600,4], p1: s32[2]) -> u8[2,4] {
  %p0 = u8[600,4]{1,0} parameter(0)
  %b = u8[2400]{0} bitcast(%p0)
  %p1 = s32[2]{0} parameter(1)
  ROOT %g = u8[2,4]{1,0} gather(%b, %p1), offset_dims={1}
}
%updates (p2: f32[600], p3: f32[1]) -> f32[600] {
  %p2 = f32[600]{0} parameter(0)
  %p3 = f32[1]{0} parameter(1)
  %i = s32[] constant(0)
  ROOT %u = f32[600]{0} dynamic-update-slice(%p2, %p3, %i)
}
%step (s: (u8[600,4], s32[2], f32[600])) -> (u8[600,4], s32[2], f32[600]) {
  %images = u8[600,4]{1,0} get-tuple-element(%s), index=0
  %order = s32[2]{0} get-tuple-element(%s), index=1
  %losses = f32[600]{0} get-tuple-element(%s), index=2
  %gather_fusion = u8[2,4]{1,0} fusion(%images, %order), kind=kLoop, calls=%gathers
  %call = (f32[2,3]{1,0}, s8[33554432]{0}) custom-call(%gather_fusion), custom_call_target="__cublas$lt$matmul", \
metadata={op_name="jit(f)/jvp(conv3)/norm_0/mul"}
  %loss = f32[1]{0} get-tuple-element(%call), index=0
  %update_fusion = f32[600]{0} fusion(%losses, %loss), kind=kLoop, calls=%updates
  %slice = f32[2]{0} dynamic-slice(%losses, %i), dynamic_slice_sizes={2}
}
ENTRY %main (v: f32[8]) -> f32[8] {
  %while = (s32[]) while(%w), condition=%c, body=%step, backend_config={"known_trip_count":{"n":"9"}}
}
"""


def test_cycles_of_a_step_include_inner_loops_and_the_costlier_branch():
    costs = estimates.step_costs(estimates.parse(TPU), 9, estimates.tpu_cycles)
    assert [(cost.name, cost.layer, cost.direction, cost.amount, cost.times) for cost in costs] == [
        ("fusion.2", "conv1/conv_0", "forwards", 100.0, 1),
        ("fusion.1", "conv2/norm_1", "backwards", 30.0, 3),  # three times, and its place is that of its parts
        ("copy.1", "other", "other", 40.0, 1),
    ]
    found = estimate("v5e", programs.Case(1, 2, "float32", images=18), TPU)
    assert found["amount_per_image"] == 85 and found["images_per_second"] == pytest.approx(1.5e9 / 85)
    assert sum(part["amount"] for part in found["parts"]) == found["amount_per_step"] == 170


def test_without_a_loop_over_the_steps_the_costliest_loop_is_taken():
    costs = estimates.step_costs(estimates.parse(TPU), 7, estimates.tpu_cycles)
    assert estimates.total(costs) == 170
    assert estimates.step_costs({}, 7, estimates.tpu_cycles) == []


def test_bytes_of_a_step_are_what_its_kernels_read_and_write():
    costs = estimates.step_costs(estimates.parse(GPU), 9, estimates.gpu_bytes)
    assert [(cost.name, cost.layer, cost.amount) for cost in costs] == [
        ("gather_fusion", "other", 8 + 8 + 8),  # two rows of the images, the order, and the result
        ("call", "conv3/norm_0", 24 + 8),  # no workspace
        ("update_fusion", "other", 4 + 4),  # one number is written in place
        ("slice", "other", 8 + 8),
    ]
    found = estimate("h100", programs.Case(8, 1, "float32", images=9), GPU)
    assert found["kernels_per_step"] == 4
    assert found["images_per_second"] == pytest.approx(8 / (4 * 1.3e-6))  # launches outlast the memory's traffic


@pytest.mark.parametrize(
    "op_name, place",
    [
        ("jit(f)/while/body/jvp(Net)/conv1/conv_0/add", ("conv1/conv_0", "forwards")),
        ("jit(f)/while/body/transpose(jvp(Net))/conv3/norm_1/mul", ("conv3/norm_1", "backwards")),
        ("jit(f)/while/body/vmap(transpose(jvp(conv2)))/conv_1/mul", ("conv2/conv_1", "backwards")),
        ("jit(f)/while/body/vmap(transpose(vmap(jvp(conv1))))/norm_0/mul", ("conv1/norm_0", "backwards")),
        ("jit(f)/while/body/vmap(jvp(transpose()))/transpose", ("other", "forwards")),
        ("jit(f)/checkpoint/rematted_computation/conv2/conv_0/mul", ("conv2/conv_0", "backwards")),
        ("jit(f)/while/body/jvp(Net)/conv1/jit(_where)/select_n", ("conv1", "forwards")),
        ("jit(f)/while/body/jvp(jit(log_softmax))/sub", ("other", "forwards")),
        ("jit(f)/while/body/mul", ("other", "other")),
        ("jit(f)/conv_general_dilated", ("other", "other")),
    ],
)
def test_layers_and_directions_are_read_from_the_names_of_operations(op_name, place):
    operation = estimates.Operation("x", "copy", "f32[1]", (), f'), metadata={{op_name="{op_name}"}}', False)
    assert estimates.place({}, operation) == place


@pytest.mark.parametrize(
    "args, message",
    [
        (["--targets", "h200"], "h200"),
        (["--lanes", "0"], "lanes must be >= 1 and <= 100000, got 0"),
        (["--batch", "64", "1"], "batch must be >= 2 and <= 60000, got 1"),
        (["--precision", "fp8"], "fp8"),
        (["--limit", "0"], "limit must be > 0, got 0.0"),
        (["--arms", "nobody"], "leave nothing to compile: there are 'ours, matmul'"),
        (["--arms", "lax.conv", "--precision", "bf16"], "leave nothing to compile"),
        (["--hlo", "/dev/null/x"], "hlo /dev/null/x cannot be created"),
        (["--no-such-flag"], "--help"),
    ],
)
def test_bad_arguments_end_in_a_sentence(args, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: benchmarks.main(["offline", "--out", str(tmp_path), *args]))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(targets, "_installed", lambda module: False)
    command.main(["--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "TPU v5e: not run: libtpu not installed: pip install -e '.[tpu]'" in printed
    assert "NVIDIA H100: not run: jax_plugins.xla_cuda12, nvidia.cuda_nvcc not installed: pip install" in printed
    assert (tmp_path / "report.md").read_text() in printed and not (tmp_path / "offline.png").exists()


def test_an_arm_that_fails_loses_no_other(monkeypatch, tmp_path, capsys):
    class FakeWorker:
        def __init__(self, entry, environment, timeout):
            assert environment["JAX_PLATFORMS"] == "cpu" and timeout == 5

        def ask(self, what, *, arguments, seconds):
            if "nn.Conv" in arguments["arm"]:
                raise WorkerError("no reply within 5 s")
            case = programs.Case(arguments["lanes"], arguments["batch"], arguments["precision"], images=18)
            return {"info": {**estimate("h100", case, GPU), "temporary_bytes": 1e6}, "compile_seconds": 2.0}

        def close(self):
            pass

    monkeypatch.setattr(command, "Worker", FakeWorker)
    monkeypatch.setattr(targets, "_installed", lambda module: True)
    command.main(["--targets", "h100", "--lanes", "64", "--limit", "5", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "results.json").read_text())
    reason = {"what": "NVIDIA H100: Flax nn.Conv, 64 lanes, batch size 64, float32", "reason": "no reply within 5 s"}
    assert found["not_run"] == [reason] and len(found["estimates"]) == len(programs.ARMS) - 1
    printed = capsys.readouterr().out
    assert "1,792,832 (1,784,243 to 1,800,835; n = 3)" in printed and "| call | conv3/norm_0 | forwards |" in printed
    assert (tmp_path / "offline.png").stat().st_size > 10_000

    command.main(
        ["--targets", "h100", "--lanes", "8", "--limit", "5", "--arms", "lax.conv", "--out", str(tmp_path), "--add"]
    )
    added = json.loads((tmp_path / "results.json").read_text())
    assert len(added["estimates"]) == len(found["estimates"]) + 1 and not added["not_run"]


@pytest.mark.parametrize("text", ["", "[]", '{"estimates": [{}]}', '{"estimates": 1}'])
def test_estimates_are_not_added_to_another_file(text, tmp_path, capsys):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: command.main(["--out", str(tmp_path), "--add"]))
    assert stop.value.code == 2 and "results.json is not a file of python -m benchmarks" in capsys.readouterr().err


def test_what_an_h100_measured_is_found_by_arm_and_case():
    ours, flax = (next(arm for arm in programs.ARMS if arm.name == name) for name in ("ours, matmul", "Flax nn.Conv"))
    expected = {(ours, 1): 406_081, (ours, 64): 1_792_832, (flax, 1): 150_284, (flax, 64): 600_395}
    for (arm, lanes), rate in expected.items():
        found = measured.rate("h100", arm, lanes, 64, "float32")
        assert found is not None and round(found["median"]) == rate
    assert measured.rate("h100", ours, 64, 128, "float32") is None
    assert measured.rate("h100", flax, 64, 64, "bf16") is None
    assert measured.rate("v5e", ours, 64, 64, "float32") is None


@pytest.fixture(params=["v5e", "h100"])
def compiled(request, tmp_path):
    """Compiles a short epoch of one network as ``auto`` trains it on a target, with the target's real compiler."""
    target = targets.TARGETS[request.param]
    if reason := target.missing():
        pytest.skip(f"{target.title}: {reason}")
    name = f"ours, {backend.convolution(ModelConfig(), target.platform)}"
    job = command.Job(
        target, next(arm for arm in programs.ARMS if arm.name == name), programs.Case(1, 64, "float32", 256)
    )
    worker = Worker(ENTRY, target.environment, timeout=300)
    try:
        found = command.compile_one(worker, job, tmp_path)
    finally:
        worker.close()
    return found, (tmp_path / job.file_name).read_text()


def test_training_compiles_for_a_device_that_is_not_there(compiled):
    found, text = compiled
    assert found["target"] == "v5e" or "__cublas" in text
    assert len(found["operations"]) == 10 and found["temporary_bytes"] > 0
    assert {"forwards", "backwards", "other"} == {part["direction"] for part in found["parts"]}
    if found["measured"]:  # an upper bound on what an H100 measured
        assert found["measured"]["median"] < found["images_per_second"]
