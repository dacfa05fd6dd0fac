"""How the tests in tests/fuzz run: a few examples, always the same ones; with FUZZ_EXAMPLES=N, N new ones of each."""

import collections
import os

import hypothesis

EXAMPLES = int(os.environ.get('FUZZ_EXAMPLES', 0))
INPUTS = collections.defaultdict(collections.Counter)  # property -> how many inputs it accepted and refused


def fuzzed(examples):
    """Settings of a property that is tried with `examples` inputs by default."""
    return hypothesis.settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
    )


def outcome(what, run, *refusals):
    """What `run()` returns, or the error of `refusals` it raises, which is one line; counted under `what`."""
    refused = None
    try:
        result = run()
    except refusals as error:
        refused = error
    INPUTS[what]['refused' if refused else 'accepted'] += 1
    if refused is None:
        return result
    assert type(refused) in refusals, repr(refused)
    assert len(str(refused).splitlines()) == 1, str(refused)
    return refused
