"""The one exception that a user can cause, so that the commands can tell it from a bug."""


class InputError(Exception):
    """Something that the user gave is wrong.

    The message is one sentence that names the argument or the file, says what was received and what is allowed,
    and how to mend it: ``learning_rate must be > 0, got -0.1``. Commands print it on standard error and exit with 2.
    Not a ValueError: tyro would take it for one of its own and frame it.
    """
