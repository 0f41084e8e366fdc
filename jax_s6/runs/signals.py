"""SIGINT and SIGTERM: a run stops after the current epoch or within five seconds, and prints how to resume it."""

import contextlib
import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from jax_s6.errors import Stopped

GRACE_SECONDS = 4.5
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopper:
    """Whether a signal asked a run to stop, and the command that resumes it.

    Attributes:
        requested: The signal's number, or None.
    """

    def __init__(self, prog: str, args: Sequence[str]):
        """Take the command as the user typed it: the program and its arguments."""
        self.requested: int | None = None
        self._prog, self._args = prog, list(args)
        self._deferring = self._resumable = False

    def resumable(self) -> None:
        """Note that the output folder belongs to this run from now on, so that ``--resume`` resumes it."""
        self._resumable = True

    def defer(self) -> None:
        """Let the run from here on continue until it calls ``stop_if_requested``."""
        self._deferring = True

    def stop_if_requested(self) -> None:
        """Raise Stopped if there was a signal."""
        if self.requested is not None:
            raise Stopped(self.requested, self.message())

    def message(self) -> str:
        """Return what stopped the run, and the command that resumes it."""
        args = [arg for arg in self._args if arg not in ("--resume", "--overwrite")] if self._resumable else self._args
        command = f"{self._prog} {shlex.join([*args, *(['--resume'] if self._resumable else [])])}"
        name = signal.Signals(self.requested or signal.SIGINT).name
        return f"stopped by {name}: {'resume' if self._resumable else 'start again'} with: {command.strip()}"

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Run in the main thread, once that is outside compiled functions."""
        self.requested = self.requested or number
        if not self._deferring:
            self.stop_if_requested()

    def _watch(self, reader: int) -> None:
        """Run in its own thread, so that it works while the main thread is inside a compiled function."""
        if not (first := os.read(reader, 1)):
            return
        self.requested = self.requested or first[0]
        if self._deferring:
            print("stopping after this epoch or in five seconds; repeat the signal to stop now", file=sys.stderr)
        select.select([reader], [], [], GRACE_SECONDS)
        second = _read_now(reader)
        if second == b"":  # the main thread has stopped in time
            return
        print(self.message(), file=sys.stderr, flush=True)
        os._exit(128 + (second[0] if second else self.requested))


@contextlib.contextmanager
def watching(prog: str, args: Sequence[str]) -> Iterator[Stopper]:
    """Handle SIGINT and SIGTERM while a command runs; do nothing outside the main thread.

    Args:
        prog: The program as the user types it.
        args: Its arguments.

    Yields:
        What tells the run to stop.
    """
    stopper = Stopper(prog, args)
    if threading.current_thread() is not threading.main_thread():
        yield stopper
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = threading.Thread(target=stopper._watch, args=(reader,), name="signals", daemon=True)
    handlers = {number: signal.signal(number, stopper._handle) for number in SIGNALS}
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield stopper
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writer)
        watcher.join()
        os.close(reader)


def _read_now(reader: int) -> bytes | None:
    """Read one byte without waiting: None if there is none yet, empty if the pipe is closed."""
    ready, _, _ = select.select([reader], [], [], 0)
    return os.read(reader, 1) if ready else None
