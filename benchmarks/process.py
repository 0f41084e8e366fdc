"""The process of an arm, seen from outside. ``worker`` is the program that runs inside."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

TIMEOUT = 900.0


class WorkerError(Exception):
    """An arm failed; the text is its own message."""


class Worker:
    """A process that runs ``benchmarks.worker`` and is stopped while no request is being answered."""

    def __init__(self, entry: str, environment: Mapping[str, str], own_group: bool = True, timeout: float = TIMEOUT):
        """Start the process. It imports the arm with the first request.

        Args:
            entry: The arm's function, ``module:function``.
            environment: Variables in addition to those of this process.
            own_group: Whether it is stopped and killed by itself, with its children. If not, it is stopped and killed
                together with this process: the helpers of an arm's process are.
            timeout: Seconds within which it must reply.
        """
        self._own_group, self._timeout = own_group, timeout
        self._log = tempfile.TemporaryFile(mode="w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", entry],
            # JAX would reserve three quarters of an accelerator's memory for the first process.
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=own_group,
        )

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Send a request and return the reply.

        Raises:
            WorkerError: The process reports an error, ends, or takes longer than its timeout.
        """
        self.send(what, **details)
        return self.receive()

    def send(self, what: str, **details: Any) -> None:
        """Wake the process and send it a request."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # it has ended, which ``receive`` reports
            self._process.stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for the reply, and stop the process again.

        It is stopped (SIGSTOP), not idle: threads that wait in a loop would take a core from the arm whose turn it is.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], self._timeout)[0]:
            raise WorkerError(f"no reply within {self._timeout:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"its process ended with status {self._process.wait(10)}: {self._last_line()}")
        self._signal(signal.SIGSTOP)
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process and its children."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # pyright: ignore[reportOptionalMemberAccess]

    def _signal(self, number: int) -> None:
        if self._own_group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"


def ask_all(workers: Sequence[Worker], what: str, **details: Any) -> list[dict[str, Any]]:
    """Send all workers a request at the same time, and return their replies."""
    for worker in workers:
        worker.send(what, **details)
    return [worker.receive() for worker in workers]
