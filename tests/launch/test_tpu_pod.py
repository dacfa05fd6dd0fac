"""launch/tpu_pod.sh with stand-ins for gcloud, sudo and docker, on two workers of this machine."""

import json
import os
import shlex
import subprocess
import sys

import checkout
import cli
import pytest
from slurm_cluster import find_free_ports

SCRIPT = cli.ROOT / 'launch/tpu_pod.sh'
PLACE = ('--name=pod', '--zone=us-west4-a')

# Logs its arguments; a command for a worker runs in that worker's folder, on all workers at once.
GCLOUD = """#!{python}
import json, os, pathlib, shutil, subprocess, sys
arguments, folder = sys.argv[1:], pathlib.Path({folder!r})
with (folder / 'gcloud.jsonl').open('a') as log:
    log.write(json.dumps(arguments) + '\\n')
flags = dict(word[2:].split('=', 1) for word in arguments if word.startswith('--') and '=' in word)
workers = ['0', '1'] if flags.get('worker') == 'all' else [flags.get('worker')]
if arguments[:4] == ['compute', 'tpus', 'tpu-vm', 'scp']:
    for worker in workers:
        shutil.copy(arguments[4], folder / worker / arguments[5].partition(':')[2])
if arguments[:4] == ['compute', 'tpus', 'tpu-vm', 'ssh']:
    started = [
        subprocess.Popen(['bash', '-c', flags['command']], cwd=folder / worker, env=os.environ | {{'WORKER': worker}})
        for worker in workers
    ]
    sys.exit(max(process.wait() for process in started))
"""

# Logs its arguments; `run` runs the entry point in the folder that was built, with the folders that are mounted there.
DOCKER = """#!{python}
import json, os, pathlib, subprocess, sys
arguments, here = sys.argv[1:], pathlib.Path.cwd()
with (here / 'docker.jsonl').open('a') as log:
    log.write(json.dumps(arguments) + '\\n')
if arguments[0] == 'build':
    assert (here / arguments[-1] / 'Dockerfile').is_file()
if arguments[0] == 'run':
    image = arguments.index('alexnet-jax:tpu')
    top = here / 'alexnet_jax'
    for word in arguments[:image]:
        if word.startswith('--volume='):
            source, inside = word.removeprefix('--volume=').split(':')
            (top / inside.removeprefix('/app/')).symlink_to(source)
    # In place of a TPU host's metadata: Open MPI's variables, which JAX reads as well.
    with (here / 'log').open('w') as log:
        sys.exit(subprocess.run(
            {entrypoint!r} + arguments[image + 1 :] + {options!r},
            cwd=top, stdout=log, stderr=log, env=os.environ | {{'OMPI_COMM_WORLD_RANK': os.environ['WORKER']}},
        ).returncode)
"""


class Pod:
    """Two workers, 0 and 1, and a folder that both see."""

    def __init__(self, folder, *, top, cache, data_dir, entrypoint=None):
        self.folder, self.top, self.shared = folder, top, folder / 'shared'
        for name in ('bin', '0', '1', 'shared/data', 'shared/runs'):
            (folder / name).mkdir(parents=True)
        programs = {
            'gcloud': GCLOUD.format(python=sys.executable, folder=str(folder)),
            'docker': DOCKER.format(
                python=sys.executable,
                entrypoint=entrypoint or checkout.get_entrypoint(),
                options=[*checkout.TINY, f'--config.data_dir={data_dir}'],
            ),
            'sudo': '#!/bin/sh\nexec "$@"\n',
        }
        for name, text in programs.items():
            (folder / 'bin' / name).write_text(text)
            (folder / 'bin' / name).chmod(0o755)
        environment = checkout.make_environment(cache)
        self.environment = environment | {
            'PATH': f'{folder}/bin:{environment["PATH"]}',
            'OMPI_MCA_orte_hnp_uri': '4096.0;tcp://127.0.0.1:1',
            'JAX_COORDINATOR_PORT': str(find_free_ports(1)[0]),
            'OMPI_COMM_WORLD_SIZE': '2',
            'OMPI_COMM_WORLD_LOCAL_RANK': '0',
        }

    def script(self, *arguments):
        return subprocess.run(
            ['launch/tpu_pod.sh', *arguments],
            cwd=self.top,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def read_calls(self, name):
        """Returns the arguments that a stand-in was called with, a list for each call."""
        path = self.folder / f'{name}.jsonl'
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope='module')
def top(tmp_path_factory):
    """A checkout with all committed."""
    top = tmp_path_factory.mktemp('checkout')
    checkout.copy(top, parts=('alexnet_jax', 'configs', 'launch', 'Dockerfile', '.gitignore'))
    names = {f'GIT_{who}_{what}': 'test' for who in ('AUTHOR', 'COMMITTER') for what in ('NAME', 'EMAIL')}
    for command in (['init', '--quiet'], ['add', '--all'], ['commit', '--quiet', '--message=all']):
        subprocess.run(['git', *command], cwd=top, env=os.environ | names, check=True)
    return top


@pytest.fixture
def pod(top, tmp_path, program_cache, tiny_dir):
    return Pod(tmp_path, top=top, cache=program_cache, data_dir=tiny_dir)


@pytest.mark.slow
@pytest.mark.parametrize(
    'trains', [False, pytest.param(True, marks=pytest.mark.repeats)], ids=['arguments', 'two processes train']
)
def test_tpu_pod_runs_from_create_to_delete(top, tmp_path, program_cache, tiny_dir, trains):
    """Where it trains, the run's own command is executed: two processes that get their index from JAX."""
    entrypoint = None if trains else ['echo']
    pod = Pod(tmp_path, top=top, cache=program_cache, data_dir=tiny_dir, entrypoint=entrypoint)
    run = ('--', '--config=configs/two_device.py', '--workdir=runs/a b')
    for arguments in (
        ('create', *PLACE, '--type=v5litepod-8', '--spot'),
        ('status', *PLACE),
        ('copy', *PLACE),
        ('run', *PLACE, f'--shared={pod.shared}', *run),
        ('logs', *PLACE, '--worker=1'),
        ('stop', *PLACE),
        ('delete', *PLACE),
    ):
        process = pod.script(*arguments)
        assert process.returncode == 0, (arguments, process.stderr, (pod.folder / '0/log').read_text())
    queued, host = ['compute', 'tpus', 'queued-resources'], ['compute', 'tpus', 'tpu-vm']
    zone = '--zone=us-west4-a'
    calls = pod.read_calls('gcloud')
    assert calls[0] == [
        *(*queued, 'create', 'pod', '--node-id=pod', zone, '--accelerator-type=v5litepod-8'),
        *('--runtime-version=v2-alpha-tpuv5-lite', '--spot'),
    ]
    assert calls[1] == [*queued, 'describe', 'pod', zone, '--format=value(state.state)']
    assert calls[2][:4] == [*host, 'scp'] and calls[2][5:] == ['pod:alexnet_jax.tar.gz', zone, '--worker=all']
    assert [call[:7] for call in calls[3:7]] == [
        [*host, 'ssh', 'pod', zone, f'--worker={worker}'] for worker in ('all', 'all', '1', 'all')
    ]
    assert calls[7:] == [[*queued, 'delete', 'pod', zone, '--force', '--quiet']]
    for worker in '01':
        docker = pod.read_calls(f'{worker}/docker')
        assert docker[0] == ['build', '--build-arg', 'EXTRA=tpu', '--tag', 'alexnet-jax:tpu', 'alexnet_jax']
        assert docker[1] == ['rm', 'alexnet']
        assert docker[2] == [
            *('run', '--detach', '--name=alexnet', '--restart=on-failure:10'),
            *('--privileged', '--network=host', '--user=root'),
            *(f'--volume={pod.shared}/{name}:/app/{name}' for name in ('data', 'runs')),
            *('alexnet-jax:tpu', '--cluster=tpu', '--config=configs/two_device.py', '--workdir=runs/a b'),
        ]
        assert ['stop', '--time=120', 'alexnet'] in docker
    assert ['logs', '--follow', '--tail=100', 'alexnet'] in pod.read_calls('1/docker')
    assert ['logs', '--follow', '--tail=100', 'alexnet'] not in pod.read_calls('0/docker')
    if not trains:
        for worker in '01':
            assert '--config=configs/two_device.py --workdir=runs/a b' in (pod.folder / worker / 'log').read_text()
        return
    assert json.loads((pod.shared / 'runs/a b/result.json').read_text())['steps'] == 2
    log = (pod.folder / '0/log').read_text()
    assert '2 processes (TPU), mesh 1x2' in log and '(0,1)' in log
    assert (pod.folder / '1/log').read_text() == ''  # only process 0 prints


@pytest.mark.parametrize(
    'arguments',
    [
        ('create', '--type=v6e-16'),
        ('status',),
        ('copy',),
        ('run', '--shared=/mnt/a', '--', '--config=configs/two_device.py', '--workdir=runs/a b'),
        ('logs',),
        ('stop',),
        ('delete', '--project=other'),
    ],
)
def test_tpu_pod_dry_run_prints_what_a_run_calls(pod, arguments):
    command, *rest = arguments
    dry = pod.script(command, *PLACE, '--dry_run', *rest)
    assert dry.returncode == 0, dry.stderr
    assert pod.read_calls('gcloud') == []
    printed = [shlex.split(line) for line in dry.stdout.splitlines()]
    (pod.folder / 'bin/docker').write_text('#!/bin/sh\n')
    assert pod.script(command, *PLACE, *rest).returncode == 0
    called = [['gcloud', *call] for call in pod.read_calls('gcloud')]
    # Only the archive's path differs.
    assert [[w for w in c if 'tmp' not in w] for c in printed] == [[w for w in c if 'tmp' not in w] for c in called]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((), 'nothing is not one of create, status'),
        (('destroy', *PLACE), 'destroy is not one of create'),
        (('create', '--zone=z'), '--name and --zone are needed'),
        (('create', *PLACE, '--kind=x'), '--kind=x is unknown'),
        (('run', *PLACE, '--', '--config=x'), '--shared is needed'),
        (('run', *PLACE, '--shared=/mnt/a'), 'nothing to run'),
    ],
)
def test_tpu_pod_reports_a_mistake_in_one_line(pod, arguments, message):
    process = pod.script(*arguments)
    assert process.returncode == 1
    assert process.stderr.startswith('error: ') and process.stderr.count('\n') == 1 and message in process.stderr
    assert pod.read_calls('gcloud') == []


def test_tpu_pod_help_names_every_command(pod):
    for arguments in (('--help',), ('run', '--help')):
        text = pod.script(*arguments).stdout
        for command in ('create', 'status', 'copy', 'run', 'logs', 'stop', 'delete'):
            assert f'launch/tpu_pod.sh {command}' in text
        assert 'Costs:' in text and 'set -euo' not in text and '#' not in text
