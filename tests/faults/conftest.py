"""The undisturbed run, a place for each fault, and the table of what came of them."""

import os
import pathlib
import re

import cli
import pytest
from faults.laboratory import Laboratory, outcome

TABLE = os.environ.get('FAULTS_TABLE')  # where the table goes; see the Makefile
ROWS = []  # as the reports of all workers bring them
BEGIN, END = '<!-- fault matrix: begin -->', '<!-- fault matrix: end -->'


@pytest.fixture(scope='session')
def undisturbed(tiny_dir, program_cache, tmp_path_factory):
    """(run folder, its numbers) of a run without a fault, one process."""
    lab = Laboratory(tmp_path_factory.mktemp('undisturbed'), data_dir=tiny_dir, cache=program_cache)
    ended = lab.run()
    assert ended.code == 0, ended.err
    return lab.workdir, outcome(lab.workdir)


@pytest.fixture
def lab(tiny_dir, program_cache, tmp_path, undisturbed):
    workdir, expected = undisturbed
    laboratory = Laboratory(tmp_path, data_dir=tiny_dir, cache=program_cache, undisturbed=workdir, expected=expected)
    yield laboratory
    laboratory.clean()


def pytest_runtest_logreport(report):
    ROWS.extend(row for name, row in report.user_properties if name == 'row' and report.when == 'call')


def pytest_sessionfinish(session, exitstatus):
    if not TABLE or exitstatus or hasattr(session.config, 'workerinput'):
        return
    path = cli.ROOT / TABLE
    lines = ['| fault | what the user sees | seconds to exit | recovered state |', '|---|---|---|---|']
    for _, name, sees, seconds, state in sorted(ROWS, key=lambda row: row[0]):
        shown = re.sub(r'/\S*/(?=(?:run|data|disk|other)\b)', '', sees).replace('|', r'\|')
        shown = re.sub(r'/\S*pytest-[^\s);]*', 'FOLDER', shown)  # where the message was cut within it
        shown = re.sub(r'pid \d+', 'pid N', re.sub(r'\d{8}T\d{6}', 'TIME', shown))
        lines.append(f'| {name} | {shown} | {"" if seconds is None else f"{seconds:.1f}"} | {state} |')
    text = pathlib.Path(path).read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + BEGIN + '\n' + '\n'.join(lines) + '\n' + END + after)
