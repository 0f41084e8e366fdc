"""The program that runs in an arm's process: it prepares the arm, and measures it on request.

Requests and replies are JSON, one object per line. ``process.Worker`` sends the requests.
"""

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
    """The work of an arm, ready to run.

    Attributes:
        run: Does the work ``n`` times and returns when all of it is done. It may return further entries of the sample,
            such as ``seconds``, which then replace those measured around the call.
        work: The amount of work done once, such as the number of images.
        num_params: Number of parameters of the network.
        losses: The losses of ``work.digits(batch)`` with ``work.state_dict()``: before a training step, and after it.
        compile_seconds: Time spent on compilation.
        repeatable: Whether to warm up, and to repeat the work until a sample is long enough.
        info: Further entries of the results.
        profile: Runs once under a profiler and writes the trace to a folder; None if that is not possible.
    """

    run: Callable[[int], dict[str, Any] | None]
    work: float
    num_params: int | None = None
    losses: list[float] = field(default_factory=list)
    compile_seconds: float = 0.0
    repeatable: bool = True
    info: dict[str, Any] = field(default_factory=dict)
    profile: Callable[[str], Any] | None = None


def repeated(once: Callable[[], Any], finish: Callable[[], Any] = lambda: None) -> Callable[[int], None]:
    """Return a ``run`` that calls ``once`` n times, and then ``finish``, which waits for the results."""

    def run(n: int) -> None:
        for _ in range(n):
            once()
        finish()

    return run


class Server:
    """Replies to the requests about one arm."""

    def __init__(self, entry: str):
        """Import nothing yet: the reply to the first request can then report an import that fails."""
        self._entry = entry
        self._task: Task | None = None
        self._repeats = 1

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is requested."""
        if request["do"] == "prepare":
            return self._prepare(request["arguments"], request["seconds"])
        assert self._task is not None
        if request["do"] == "profile":
            return {} if self._task.profile is None else self._task.profile(request["folder"]) or {}
        return self._sample(self._task, request.get("repeats", self._repeats))

    def _prepare(self, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        self._task = None  # frees the memory of the previous case
        module, _, function = self._entry.partition(":")
        self._task = task = getattr(importlib.import_module(module), function)(**arguments)
        self._repeats = 1
        if task.repeatable and seconds > 0:
            once = self._sample(task, 1)["seconds"]  # the warm-up; if it was short, measure again: the first is slower
            once = self._sample(task, 1)["seconds"] if once < 2 * seconds else once
            self._repeats = max(1, round(seconds / once))
        memory = peak_memory()
        return {
            "num_params": task.num_params,
            "losses": task.losses,
            "compile_seconds": task.compile_seconds,
            "work": task.work,
            "repeats": self._repeats,
            "peak_memory": memory,
            "accelerated": "device" in memory,
            "info": task.info,
        }

    def _sample(self, task: Task, repeats: int) -> dict[str, Any]:
        start = time.perf_counter()
        more = task.run(repeats) or {}
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "work": task.work * repeats, "peak_memory": peak_memory(), **more}


def peak_memory() -> dict[str, int]:
    """Return the peak memory so far, in bytes: of this process, and of its accelerator if the framework reports it."""
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)}
    if (jax := sys.modules.get("jax")) is not None and (stats := jax.local_devices()[0].memory_stats()):
        found["device"] = stats.get("peak_bytes_in_use", 0)
    elif (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        found["device"] = torch.cuda.max_memory_allocated()
    return found


def end_with_parent() -> None:
    """Let Linux end this process together with its parent, even while it is stopped."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Reply to requests until the other side closes the pipe."""
    end_with_parent()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    server = Server(sys.argv[1])
    for line in sys.stdin:
        try:
            reply = server.reply(json.loads(line))
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            reply = {"error": f"{type(error).__name__}: {text}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
