"""The exceptions that end a command without being a bug of it."""


class InputError(Exception):
    """Something that the user gave cannot be used.

    The message is one sentence that names the argument or the file, the value received, what is allowed and, where that
    does not follow, what to do: ``learning_rate must be > 0, got -0.1``. Commands print it on standard error and exit
    with status 2. Not a ValueError, which tyro would take for one of its own and print in a frame.
    """


class Stopped(BaseException):
    """A signal stopped the run. Not an Exception, so that no code on the way handles it as a failure of its own.

    Attributes:
        number: The signal's number.
    """

    def __init__(self, number: int, message: str):
        """Keep the message, which says what happened and how to resume."""
        super().__init__(message)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.number
