"""Inside an arm's process: prepares its work, and times it when asked. Speaks JSON lines with ``process.Worker``."""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PR_SET_PDEATHSIG = 1


@dataclass
class Task:
    """An arm's work, prepared.

    Attributes:
        run: ``(n)``: does the work n times and returns when all of it is done; may return more about the last time,
            among them ``seconds`` in place of those measured around the call.
        work: How much it is, once: images, floating-point operations.
        num_params: Of the network.
        losses: Of ``work.batch`` with ``work.state_dict``'s weights: before a step, and after it.
        compile_seconds: Spent compiling.
        repeatable: Whether it is warmed up, and repeated to fill a sample.
        info: More for the report.
        profile: ``(folder)``: runs once under a profiler; None where there is none.
    """

    run: Callable[[int], dict[str, Any] | None]
    work: float
    num_params: int | None = None
    losses: list[float] = field(default_factory=list)
    compile_seconds: float = 0.0
    repeatable: bool = True
    info: dict[str, Any] = field(default_factory=dict)
    profile: Callable[[str], Any] | None = None


class Server:
    """Answers requests about one arm."""

    def __init__(self, entry: str):
        """Nothing is imported before the first request, whose answer can tell what went wrong."""
        self._entry = entry
        self._task: Task | None = None
        self._repeats = 1

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what is asked."""
        if request["do"] == "prepare":
            return self._prepare(request["arguments"], request["seconds"])
        assert self._task is not None
        if request["do"] == "profile":
            return {} if self._task.profile is None else self._task.profile(request["folder"]) or {}
        return self._sample(self._task, self._repeats)

    def _prepare(self, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        self._task = None  # free the last case's memory
        module, _, function = self._entry.partition(":")
        self._task = task = getattr(importlib.import_module(module), function)(**arguments)
        self._repeats = 1
        if task.repeatable and seconds > 0:
            once = self._sample(task, 1)["seconds"]  # a warm-up; again if it was short, since the first one is slower
            once = self._sample(task, 1)["seconds"] if once < 2 * seconds else once
            self._repeats = max(1, round(seconds / once))
        return {
            "num_params": task.num_params,
            "losses": task.losses,
            "compile_seconds": task.compile_seconds,
            "repeats": self._repeats,
            "peak_memory": peak_memory(),
            "accelerated": "device" in peak_memory(),
            "info": task.info,
        }

    def _sample(self, task: Task, repeats: int) -> dict[str, Any]:
        start = time.perf_counter()
        more = task.run(repeats) or {}
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "work": task.work * repeats, "peak_memory": peak_memory(), **more}


def peak_memory() -> dict[str, int]:
    """Bytes at most so far: of this process, and of its accelerator where the framework tells."""
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)}
    if (jax := sys.modules.get("jax")) is not None and (stats := jax.local_devices()[0].memory_stats()):
        found["device"] = stats.get("peak_bytes_in_use", 0)
    elif (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        found["device"] = torch.cuda.max_memory_allocated()
    return found


def end_with_parent() -> None:
    """Has Linux end this process with its parent, even while it is stopped."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serves until the other side closes the pipe."""
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    server = Server(sys.argv[1])
    for line in sys.stdin:
        try:
            answer = server.answer(json.loads(line))
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            answer = {"error": f"{type(error).__name__}: {text}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
