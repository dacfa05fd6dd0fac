"""The errors that are the user's to mend, and the codes that commands exit with. Imports nothing."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that says what to do instead.

    Commands print it as `error: ...` and leave with exit code 1; anything else that is raised is a bug
    and keeps its traceback. Names from files may hold anything, so what is not printable is shown as its escape.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode('ascii') for c in text)


class Interrupted(Exception):
    """A run was told to stop, and did; the text says what was saved."""


def get_first_line(error: Exception) -> str:
    """Returns what an error of a library says, as one line of at most 200 characters."""
    return (str(error).splitlines() or [repr(error)])[0][:200]


# Exit codes, for launchers; alexnet_jax/distributed/exit.py says what each asks for.
FAILED, LOST, INTERRUPTED = 1, 75, 76
