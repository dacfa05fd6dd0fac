"""The Dockerfile without Docker: its steps, run in the order and with the words it has."""

import fnmatch
import json
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
    """What .dockerignore leaves of the checkout: `COPY . .`."""
    lines = (cli.ROOT / '.dockerignore').read_text().splitlines()
    assert '*' in lines  # everything is out but
    kept = [line[1:] for line in lines if line.startswith('!')]
    names = [path.name for path in cli.ROOT.iterdir()]
    parts = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in kept)]
    assert '.git' not in parts and 'data' not in parts
    return checkout.copy(tmp_path, parts=parts)


def test_container_entry_point_trains_with_what_is_copied(context, tiny_dir, program_cache):
    command = [*checkout.get_entrypoint(), '--config=configs/two_device.py', f'--config.data_dir={tiny_dir}']
    ((code, error),) = checkout.run_together(
        [*command, *checkout.TINY, '--workdir=runs/a'], [checkout.make_environment(program_cache)], cwd=context
    )
    assert code == 0, error
    assert json.loads((context / 'runs/a/result.json').read_text())['steps'] == 2


@pytest.mark.parametrize('extra', ['', 'cuda12', 'cuda13', 'tpu'])
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
