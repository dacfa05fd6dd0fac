"""The rows of the fault matrix, which the files beside this one add."""

import dataclasses
from collections.abc import Callable

HEARTBEAT, GRACE = 10, 5  # seconds: of main's default, and what a process may take besides
ROWS = []


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    inflict: Callable  # (lab) -> (what the user sees, seconds to exit, what became of the state)
    tier: str  # 'test': in `make test`; 'repeats': in `make test-all`; 'faults': in `make faults` only, which has all
    group: str | None


def row(name, *, tier='faults', group=None, **arguments):
    """The decorated function as a row of the matrix; with `arguments`, called with them."""

    def add(function):
        ROWS.append(Row(name.format(**arguments), lambda lab: function(lab, **arguments), tier, group))
        return function

    return add
