"""The described devices: how to compile for each, what its compiler needs, and the constants of its estimate."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TargetName = Literal["v5e", "v6e", "h100"]

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Libtpu otherwise waits for Google Cloud's metadata server, and lets one process at a time load it, which is needed
# only where there is a TPU.
TPU_ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
# Without a device nothing can be tuned, and Triton's untuned tiles can fail to compile. Without command buffers, the
# text shows every kernel.
GPU_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false --xla_gpu_enable_command_buffer="
INSTALL = "pip install -e '.[{}]'"


@dataclass(frozen=True)
class Target:
    """A device to compile for.

    Attributes:
        name: Its name on the command line.
        title: Its name in tables and pictures.
        platform: JAX's name of its platform: ``tpu`` or ``cuda``.
        topology: The compiler's name of the smallest machine with it.
        requires: The modules that compile for it.
        install: The command that installs them.
        per_second: Clock cycles (TPU) or bytes of memory traffic (GPU) per second.
        launch: Shortest time per kernel in seconds.
        source: Where these two numbers are from, for the report.
        environment: Environment variables of the process that compiles.
    """

    name: str
    title: str
    platform: str
    topology: str
    requires: tuple[str, ...]
    install: str
    per_second: float
    launch: float
    source: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What the estimate counts."""
        return "cycles" if self.platform == "tpu" else "bytes"

    def seconds(self, amount: float, kernels: int) -> float:
        """Return the shortest time of a step that takes this many cycles or bytes, and this many kernels."""
        return max(amount / self.per_second, self.launch * kernels)

    def missing(self) -> str | None:
        """Return why nothing can be compiled for it here; None if it can."""
        absent = [name for name in self.requires if not _installed(name)]
        return f"{', '.join(absent)} not installed: {self.install}" if absent else None

    def describe(self) -> Any:
        """Return the device, as JAX's compiler sees it. The process needs ``environment`` before it imports JAX."""
        from jax.experimental import topologies

        if self.platform == "tpu":
            return topologies.get_topology_desc(topology_name=self.topology, platform="tpu").devices[0]
        described = topologies.get_topology_desc("h100", "cuda", target_config=H100, topology=self.topology)
        return described.devices[0]


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that should hold it
        return False


def _tpu(name: str, clock: float, source: str) -> Target:
    install = INSTALL.format("tpu")
    return Target(name, f"TPU {name}", "tpu", f"{name}:2x2", ("libtpu",), install, clock, 0.0, source, TPU_ENVIRONMENT)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        _tpu(
            "v5e",
            1.5e9,
            "1.5e9 cycles/s: Cloud TPU's documentation states 197e12 bf16 operations per second, and each of 4 matrix"
            " units does 128 x 128 x 2 per cycle",
        ),
        _tpu(
            "v6e",
            1.75e9,
            "1.75e9 cycles/s, which is less certain: Cloud TPU's documentation states 918e12 bf16 operations per"
            " second, which are 4 matrix units of 256 x 256 x 2 per cycle; the same documentation has also said 2. With"
            " this clock the compiler estimates that a long copy uses 81 % of the stated memory bandwidth, as for v5e",
        ),
        Target(
            name="h100",
            title="NVIDIA H100",
            platform="cuda",
            topology="1x1x1",
            requires=("jax_plugins.xla_cuda12", "nvidia.cuda_nvcc"),
            install=INSTALL.format("offline"),
            per_second=3.35e12,
            launch=1.3e-6,
            source="3.35e12 bytes/s, which NVIDIA states for the H100 SXM, and at least 1.3 us per kernel, as"
            " assumed: one network, whose kernels are short, took 1.6 us for each of 97 on an H100",
            environment={"JAX_PLATFORMS": "cpu", "XLA_FLAGS": GPU_FLAGS},
        ),
    )
}
