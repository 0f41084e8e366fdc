"""A sweep in several processes, on one or more machines: JAX's distributed runtime, with one-sentence errors."""

import contextlib
import hashlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from jax_s6.errors import InputError
from jax_s6.runs.signals import Stopped
from jax_s6.settings import Setting

CONNECT_SECONDS = 45
HEARTBEAT_SECONDS = 30
"""JAX ends all processes if one of them has not answered for this many seconds."""


@dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """How the processes of one sweep find each other."""

    distributed: Annotated[
        bool,
        Setting(
            "Share the sweep with other processes, which find each other under SLURM, Kubernetes and on cloud TPUs."
        ),
    ] = False
    coordinator: Annotated[
        str | None, Setting("Address of process 0 as HOST:PORT, if the processes do not find each other.")
    ] = None
    num_processes: Annotated[int | None, Setting("Number of processes, >= 1; with --coordinator.")] = None
    process_id: Annotated[int | None, Setting("Number of this process, from 0; with --coordinator.")] = None

    def __post_init__(self) -> None:
        """Check that the settings fit together."""
        given = [self.coordinator, self.num_processes, self.process_id]
        if not self.distributed and any(value is not None for value in given):
            raise InputError("coordinator, num_processes and process_id need --distributed: add it")
        if any(value is None for value in given) and any(value is not None for value in given):
            raise InputError("coordinator, num_processes and process_id must be given together, or none of them")
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdigit():
            raise InputError(f"coordinator must be HOST:PORT, got {self.coordinator!r}")
        if self.num_processes is not None and self.process_id is not None:
            if not 0 <= self.process_id < self.num_processes:
                raise InputError(
                    f"process_id must be >= 0 and < num_processes {self.num_processes}, got {self.process_id}"
                )


def initialize(config: DistributedConfig) -> None:
    """Connect to the other processes; call it before the backend starts.

    Raises:
        InputError: Not all processes connected in time, or JAX found no cluster.
    """
    where = config.coordinator or "the cluster that JAX found"
    late = (
        f"distributed: not all processes connected at {where} within {CONNECT_SECONDS} s: start all of them, with the"
        " same --coordinator and --num-processes"
    )
    # JAX aborts the process with a stack trace after its own timeout, so this one is shorter.
    watchdog = threading.Timer(CONNECT_SECONDS, _end, (late, 2))
    watchdog.daemon = True
    watchdog.start()
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.num_processes,
            config.process_id,
            initialization_timeout=2 * CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:  # JaxRuntimeError is a RuntimeError
        if config.coordinator is None and isinstance(error, ValueError):
            raise InputError(
                "distributed: no cluster is found here (SLURM, Kubernetes, a cloud TPU): give --coordinator HOST:PORT,"
                " --num-processes and --process-id"
            ) from None
        raise InputError(f"distributed: cannot connect at {where}: {_first_line(error)}") from None
    finally:
        watchdog.cancel()


def is_main() -> bool:
    """Return whether this process writes the files and prints."""
    return jax.process_index() == 0


def require_same(text: str, what: str) -> None:
    """Compare a text with that of process 0.

    Raises:
        InputError: It differs; the message names ``what`` must be the same in all processes.
    """
    if jax.process_count() > 1:
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
        if (multihost_utils.broadcast_one_to_all(digest) != digest).any():
            raise InputError(f"process {jax.process_index()} must have the same {what} as process 0")


def largest(number: int) -> int:
    """Return the largest of all processes' numbers; every process must call it at the same point."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """End this process with one sentence if it or another one fails; otherwise it would wait for the others."""
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        match error:
            case JaxRuntimeError():
                lost = f"another process of the sweep was lost ({_first_line(error)})"
                _end(f"{lost}: start all of them again with --resume", 1)
            case InputError():
                _end(str(error), 2)
            case Stopped():
                _end(str(error), error.status)
            case _:
                traceback.print_exc()
                _end("this process of the sweep failed, see above", 1)


def _end(message: str, status: int) -> None:
    """Print a message and end the process without waiting for the others."""
    print(message if status > 128 else f"error: {message}", file=sys.stderr, flush=True)
    os._exit(status)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
