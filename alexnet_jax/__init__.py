"""AlexNet as it was really trained: two towers on two devices, in JAX.

Every module at this level is a command (`python -m alexnet_jax.main --help`); the rooms below it are
libraries, from low to high: model, parallel, data -> training -> evaluation.
"""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that says what to do instead.

    Commands print it as `error: ...` and leave with exit code 1; anything else that is raised is a bug
    and keeps its traceback.
    """
