"""launch/slurm.sbatch with small programs in place of SLURM's and of Python: the exit codes that it requeues."""

import os
import subprocess

import cli
import pytest


@pytest.mark.parametrize(
    ('code', 'requeued'), [(0, False), (1, False), (2, False), (75, True), (76, True), (137, True), (143, True)]
)
def test_slurm_script_requeues_lost_and_interrupted_runs(tmp_path, code, requeued):
    for name, text in (
        ('srun', 'test "$1" = --kill-on-bad-exit=0 && shift && exec "$@"'),
        ('scontrol', 'echo "scontrol $*"'),
        ('.venv/bin/python', f'printf "%s|" "$@"; echo; exit {code}'),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/bash\n{text}\n')
        path.chmod(0o755)
    process = subprocess.run(
        ['bash', cli.ROOT / 'launch/slurm.sbatch', '--config=x.py', '--workdir=a b'],
        cwd=tmp_path,
        env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '77'},
        capture_output=True,
        text=True,
    )
    assert process.returncode == code
    lines = process.stdout.splitlines()
    assert lines[0] == '-m|alexnet_jax.main|--config=x.py|--workdir=a b|'
    assert lines[1:] == ([f'ended with code {code}: requeued', 'scontrol requeue 77'] if requeued else [])
