"""The Dockerfile without Docker: its steps, run in the order and with the words it has.

That its entry point trains with what is copied, tests/launch/test_kubernetes.py shows in two pods of the image.
"""

import os
import re
import subprocess
import tomllib

import checkout
import cli
import pytest
from packaging.specifiers import SpecifierSet

LINES = (cli.ROOT / 'Dockerfile').read_text().splitlines()
PROJECT = tomllib.loads((cli.ROOT / 'pyproject.toml').read_text())['project']


def find_line(start):
    """The number of the Dockerfile's only line that starts so."""
    (number,) = (i for i, line in enumerate(LINES) if line.startswith(start))
    return number


def get_arguments(start):
    """That line without its first word."""
    return LINES[find_line(start)].partition(' ')[2]


@pytest.fixture
def context(tmp_path):
    return checkout.copy_context(tmp_path)


@pytest.mark.parametrize(
    'extra', ['', 'cuda12', *(pytest.param(e, marks=pytest.mark.repeats) for e in ('cuda13', 'tpu'))]
)
def test_container_argument_names_an_extra(context, extra, tmp_path):
    """The RUN line itself, with a pip that only prints its arguments."""
    bin = tmp_path / 'bin'
    bin.mkdir()
    (bin / 'pip').write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (bin / 'pip').chmod(0o755)
    arguments = subprocess.run(
        ['sh', '-euc', get_arguments('RUN pip install --no-cache-dir --disable-pip-version-check --constraint')],
        cwd=context,
        env={'PATH': f'{bin}:{os.environ["PATH"]}', 'EXTRA': extra},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert arguments[-3:] == ['--constraint', 'requirements.txt', f'.[{extra}]' if extra else '.']
    assert not extra or extra in PROJECT['optional-dependencies']


def test_container_dependencies_are_installed_before_the_code(context):
    files = get_arguments('COPY pyproject.toml').split()[:-1]
    assert {'pyproject.toml', 'requirements.txt', PROJECT['readme'], *PROJECT['license-files']} == set(files)
    assert all((context / file).is_file() for file in files)
    first, second = (i for i, line in enumerate(LINES) if line.startswith('RUN pip install'))
    assert find_line('COPY pyproject.toml') < first < find_line('COPY . .') < second
    assert '--no-deps --editable .' in LINES[second]


def test_container_base_is_a_supported_python():
    version = re.fullmatch(r'python:(\d+\.\d+\.\d+)-slim-bookworm(@sha256:\w{64})?', get_arguments('FROM'))
    assert version and version[1] in SpecifierSet(PROJECT['requires-python'])
