"""Copies of this checkout as launchers find one elsewhere, and the commands that files for launchers hold."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys

import cli

# Appended to such a command: two steps of the small prepared dataset, without norms, which take most of compiling.
TINY = (
    *('--config.dataset=tiny', '--config.variant=no_norm', '--config.width=0.01', '--config.batch_size=8'),
    *('--config.steps=2', '--config.evaluate_every=2'),
)


def copy(folder, *, parts=('alexnet_jax', 'configs', 'launch')):
    """Copies those parts of the checkout to `folder`, with this Python's environment as its .venv; returns `folder`."""
    for part in parts:
        source = cli.ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(source, folder / part)
    (folder / '.venv').symlink_to(sys.prefix)
    return folder


def copy_context(folder):
    """Copies what .dockerignore leaves of the checkout, which is what the image holds: `COPY . .`; returns `folder`."""
    lines = (cli.ROOT / '.dockerignore').read_text().splitlines()
    assert '*' in lines  # everything is out but
    kept = [line[1:] for line in lines if line.startswith('!')]
    names = [path.name for path in cli.ROOT.iterdir()]
    parts = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in kept)]
    assert '.git' not in parts and 'data' not in parts
    return copy(folder, parts=parts)


def get_entrypoint():
    """Returns the command of the container: ENTRYPOINT of the Dockerfile."""
    return json.loads(re.search(r'^ENTRYPOINT (\[.*\])$', (cli.ROOT / 'Dockerfile').read_text(), re.MULTILINE)[1])


def make_environment(cache):
    """Returns the variables of a process in the container: no more than a user's, and this Python as `python`."""
    inherited = cli.environment(cache)
    return inherited | {'PATH': f'{os.path.dirname(sys.executable)}:{inherited["PATH"]}', 'PYTHONUNBUFFERED': '1'}


def run_together(command, environments, *, cwd, timeout=240):
    """Runs the command once in each environment, all at the same time: [(exit code, standard error)]."""
    processes = [
        subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True)
        for environment in environments
    ]
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]
