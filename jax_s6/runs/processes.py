"""Several processes, on one machine or many, as one: JAX's own runtime, with its failures said in a sentence."""

import contextlib
import hashlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from jax_s6.errors import InputError
from jax_s6.runs.signals import Stopped

CONNECT_SECONDS = 45
HEARTBEAT_SECONDS = 30
"""A process that is silent for so long is taken for dead; JAX then ends the others."""


@dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """Several processes as one sweep."""

    distributed: bool = False
    """Be one of several processes that share the sweep; found by itself under SLURM, Kubernetes and on cloud TPUs."""
    coordinator: str | None = None
    """Address of process 0 as HOST:PORT, where it is not found by itself."""
    num_processes: int | None = None
    """How many processes there are, >= 1; with --coordinator."""
    process_id: int | None = None
    """Which of them this is, from 0; with --coordinator."""

    def __post_init__(self) -> None:
        """Checks that what belongs together is given together."""
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
    """Connects to the other processes, before the backend starts.

    Raises:
        InputError: They could not all be reached in time, or JAX found no cluster.
    """
    where = config.coordinator or "the cluster that JAX looked for"
    late = (
        f"distributed: not all processes met at {where} within {CONNECT_SECONDS} s: start all of them, with the same"
        " --coordinator and --num-processes"
    )
    # When its own time is up, JAX aborts the process with a stack trace: be quicker.
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
        raise InputError(f"distributed: cannot meet at {where}: {_first_line(error)}") from None
    finally:
        watchdog.cancel()


def is_main() -> bool:
    """Whether this process writes the files and talks."""
    return jax.process_index() == 0


def require_same(text: str, what: str) -> None:
    """Compares a text with process 0's.

    Raises:
        InputError: It differs; ``what`` says what all processes must have in common.
    """
    if jax.process_count() > 1:
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
        if (multihost_utils.broadcast_one_to_all(digest) != digest).any():
            raise InputError(f"process {jax.process_index()} must have the same {what}, as process 0")


def largest(number: int) -> int:
    """Returns the largest of the processes' numbers; all of them must ask at the same point."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Ends this process with a sentence when another one is lost; it would wait for it at its exit otherwise."""
    try:
        yield
    except JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        _end(f"another process of the sweep was lost ({_first_line(error)}): start all of them again with --resume", 1)
    except InputError as error:
        if jax.process_count() == 1:
            raise
        _end(str(error), 2)
    except Stopped as stop:
        if jax.process_count() == 1:
            raise
        _end(str(stop), stop.status)
    except BaseException:
        if jax.process_count() == 1:
            raise
        traceback.print_exc()
        _end("this process of the sweep failed, see above", 1)


def _end(message: str, status: int) -> None:
    print(message if status > 128 else f"error: {message}", file=sys.stderr, flush=True)
    os._exit(status)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
