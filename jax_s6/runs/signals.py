"""SIGINT and SIGTERM: a run ends at the next end of an epoch or within five seconds, and says how to go on."""

import contextlib
import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

GRACE_SECONDS = 4.5
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asked the run to end. Not an Exception, which code on the way might take for a failure of its own.

    Attributes:
        number: The signal's.
    """

    def __init__(self, number: int, message: str):
        """Says what happened and how to go on."""
        super().__init__(message)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.number


class Stopper:
    """Whether a run is asked to end, and how its user can go on with it.

    Attributes:
        requested: The number of the signal that came, or None.
    """

    def __init__(self, prog: str, args: Sequence[str]):
        """Remembers the command."""
        self.requested: int | None = None
        self._prog, self._args = prog, list(args)
        self._deferring = self._resumable = False

    def resumable(self) -> None:
        """Notes that the output folder is the run's own from now on, so that ``--resume`` is right."""
        self._resumable = True

    def defer(self) -> None:
        """Lets the work from here on end at a good moment, where it calls ``stop_if_requested``."""
        self._deferring = True

    def stop_if_requested(self) -> None:
        """Raises Stopped if a signal has come."""
        if self.requested is not None:
            raise Stopped(self.requested, self.message())

    def message(self) -> str:
        """Says what stopped the run and with which command it goes on."""
        args = [arg for arg in self._args if arg not in ("--resume", "--overwrite")] if self._resumable else self._args
        command = f"{self._prog} {shlex.join([*args, *(['--resume'] if self._resumable else [])])}"
        name = signal.Signals(self.requested or signal.SIGINT).name
        return f"stopped by {name}: {'go on' if self._resumable else 'start again'} with: {command.strip()}"

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Runs in the main thread, as soon as that is not inside a compiled function."""
        self.requested = self.requested or number
        if not self._deferring:
            self.stop_if_requested()

    def _watch(self, reader: int) -> None:
        """Runs in a thread of its own, which a main thread inside a compiled function does not hold up."""
        if not (first := os.read(reader, 1)):
            return
        self.requested = self.requested or first[0]
        if self._deferring:
            print("stopping at the end of this epoch, or in five seconds; again to stop now", file=sys.stderr)
        select.select([reader], [], [], GRACE_SECONDS)
        second = _read_now(reader)
        if second == b"":  # the main thread has left in time
            return
        print(self.message(), file=sys.stderr, flush=True)
        os._exit(128 + (second[0] if second else self.requested))


@contextlib.contextmanager
def watching(prog: str, args: Sequence[str]) -> Iterator[Stopper]:
    """Handles the signals while a command runs, if this is the main thread.

    Args:
        prog: The command as the user types it.
        args: Its arguments.

    Yields:
        What tells the run to end.
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
    """Reads a byte if there is one: None if there is none yet, empty at the end."""
    ready, _, _ = select.select([reader], [], [], 0)
    return os.read(reader, 1) if ready else None
