"""Tells, after the tests, how many inputs each property has seen."""

import tempfile

import hypothesis.configuration
from fuzzing import INPUTS

# Hypothesis notes the constants of our sources down; now, because it begins before any fixture. Gone with the process.
_NOTES = tempfile.TemporaryDirectory(prefix='hypothesis')
hypothesis.configuration.set_hypothesis_home_dir(_NOTES.name)


def pytest_terminal_summary(terminalreporter):
    for what, seen in INPUTS.items():
        counts = f'{seen.total():,} inputs, {seen["accepted"]:,} accepted, {seen["refused"]:,} refused'
        terminalreporter.write_line(f'fuzz: {what}: {counts}')
