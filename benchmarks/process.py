"""A process that serves an arm, seen from outside: it is asked, answers, and sleeps in between."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

TIMEOUT = 900.0


class WorkerError(Exception):
    """An arm failed: in its own words."""


class Worker:
    """A process that runs ``benchmarks.worker``."""

    def __init__(self, entry: str, environment: Mapping[str, str]):
        """Starts it; it prepares nothing yet."""
        self._log = tempfile.TemporaryFile(mode="w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", entry],
            # Of an accelerator's memory, JAX would take three quarters for the first process.
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # a group of its own: its children are stopped and ended with it
        )

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Wakes the process, asks, waits for the answer, and stops the process again.

        Stopped (SIGSTOP), not idle: threads that wait by spinning would take a core from the arm whose turn it is.

        Raises:
            WorkerError: It reports an error, ends, or takes longer than ``TIMEOUT`` seconds.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], TIMEOUT)[0]:
                raise WorkerError(f"no answer within {TIMEOUT:.0f} s")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise WorkerError(f"its process ended with status {self._process.wait(10)}: {self._last_words()}")
        self._signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process and its children."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # pyright: ignore[reportOptionalMemberAccess]

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"
