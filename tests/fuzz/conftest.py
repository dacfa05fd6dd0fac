"""Tells, after the tests, how many inputs each property has seen."""

import hypothesis.configuration
import pytest
from fuzzing import INPUTS


@pytest.fixture(scope='session', autouse=True)
def nothing_of_hypothesis_in_the_checkout(tmp_path_factory):
    hypothesis.configuration.set_hypothesis_home_dir(tmp_path_factory.mktemp('hypothesis'))


def pytest_terminal_summary(terminalreporter):
    for what, seen in INPUTS.items():
        counts = f'{seen.total():,} inputs, {seen["accepted"]:,} accepted, {seen["refused"]:,} refused'
        terminalreporter.write_line(f'fuzz: {what}: {counts}')
