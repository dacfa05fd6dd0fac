"""launch/kubernetes*.yaml: their commands run as written, and their rules for each exit code.

Whether Kubernetes accepts them is tested in tests/extras/test_kubernetes_schemas.py.
"""

import json
import re
import subprocess

import checkout
import cli
import pytest
import yaml
from slurm_cluster import find_free_ports
from sweep import programs

from alexnet_jax.distributed.hosts import ProcessGroup, find_process_group
from alexnet_jax.errors import FAILED, INTERRUPTED, LOST

JOBS = ('kubernetes.yaml', 'kubernetes_sweep.yaml')


def load_resources(name):
    """Returns {kind: resource} of a file, of claims {name: resource}."""
    resources = list(yaml.safe_load_all((cli.ROOT / 'launch' / name).read_text()))
    return {each['metadata']['name'] if 'Claim' in each['kind'] else each['kind']: each for each in resources}


def load_job(name):
    """Returns the Job's spec, its pods' spec, and their only container."""
    spec = load_resources(name)['Job']['spec']
    pod = spec['template']['spec']
    (container,) = pod['containers']
    return spec, pod, container


def make_pod_environment(name, index):
    """Returns the variables of pod `index`: those of the file, and the one that the Job controller adds."""
    variables = {variable['name']: variable['value'] for variable in load_job(name)[2].get('env', ())}
    return variables | {'JOB_COMPLETION_INDEX': str(index)}


def make_pod_command(name, index):
    """Returns what the kubelet starts there: command (or the image's entry point) and arguments, $(NAME) replaced."""
    _, _, container = load_job(name)
    arguments = [*(container.get('command') or checkout.get_entrypoint()), *container['args']]
    variables = make_pod_environment(name, index)
    return [re.sub(r'\$\((\w+)\)', lambda match: variables[match[1]], argument) for argument in arguments]


def find_action(name, code):
    """Returns what the Job does when a container exits with `code`: the first rule that matches, else it counts."""
    spec, _, container = load_job(name)
    for rule in spec['podFailurePolicy']['rules']:
        codes = rule.get('onExitCodes')
        if codes:
            assert codes['operator'] == 'In' and codes['containerName'] == container['name']
            if code in codes['values']:
                return rule['action']
    return 'Count'


@pytest.mark.parametrize('name', JOBS)
def test_job_restarts_lost_and_interrupted_pods_but_not_errors(name):
    assert {code: find_action(name, code) for code in (LOST, INTERRUPTED, 137, 143, 134)} == {
        LOST: 'Ignore', INTERRUPTED: 'Ignore', 137: 'Count', 143: 'Count', 134: 'Count',
    }  # fmt: skip
    assert find_action(name, FAILED) == ('FailJob' if name == 'kubernetes.yaml' else 'FailIndex')
    spec, pod, _ = load_job(name)
    assert spec['backoffLimit' if name == 'kubernetes.yaml' else 'backoffLimitPerIndex'] > 0
    assert pod['restartPolicy'] == 'Never'  # Kubernetes refuses a podFailurePolicy with another
    assert pod['terminationGracePeriodSeconds'] >= 60
    disrupted = [rule['action'] for rule in spec['podFailurePolicy']['rules'] if 'onPodConditions' in rule]
    assert disrupted == ['Ignore']


@pytest.mark.parametrize('name', JOBS)
def test_job_agrees_with_the_image_and_the_claims(name):
    spec, pod, container = load_job(name)
    assert spec['completionMode'] == 'Indexed'
    dockerfile = (cli.ROOT / 'Dockerfile').read_text()
    assert f'USER {pod["securityContext"]["runAsUser"]}\n' in dockerfile
    top = re.search(r'^WORKDIR (\S+)$', dockerfile, re.MULTILINE)[1]
    claims = {volume['name']: volume.get('persistentVolumeClaim', {}).get('claimName') for volume in pod['volumes']}
    mounts = {mount['mountPath']: claims[mount['name']] for mount in container['volumeMounts']}
    assert mounts == {f'{top}/data': 'alexnet-data', f'{top}/runs': 'alexnet-runs', '/dev/shm': None}
    assert {'alexnet-data', 'alexnet-runs'} == set(load_resources('kubernetes_storage.yaml'))
    (workdir,) = (argument for argument in container['args'] if argument.startswith('--workdir='))
    assert workdir.startswith('--workdir=runs/')


def test_job_gives_every_pod_its_index_and_the_coordinator():
    service, spec, pod = load_resources('kubernetes.yaml')['Service'], *load_job('kubernetes.yaml')[:2]
    name = load_resources('kubernetes.yaml')['Job']['metadata']['name']
    (port,) = (port['port'] for port in service['spec']['ports'])
    assert service['spec']['clusterIP'] == 'None'  # the word, in YAML; it makes the Service headless
    assert service['spec']['selector'] == {'batch.kubernetes.io/job-name': name}
    assert pod['subdomain'] == service['metadata']['name']
    assert spec['completions'] == spec['parallelism']
    for index in range(spec['completions']):
        assert find_process_group(environment=make_pod_environment('kubernetes.yaml', index)) == ProcessGroup(
            index=index,
            count=spec['completions'],
            coordinator=f'{name}-0.{pod["subdomain"]}:{port}',
            found='Kubernetes',
        )


@pytest.mark.slow
def test_job_trains_in_two_pods(tmp_path, tiny_dir, program_cache):
    """By the image's entry point and with what the image holds.

    On loopback, where no Service resolves alexnet-0.alexnet: that one variable differs.
    """
    top = checkout.copy_context(tmp_path)
    coordinator = {'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{find_free_ports(1)[0]}'}
    indices = range(load_job('kubernetes.yaml')[0]['completions'])
    pod_commands = {tuple(make_pod_command('kubernetes.yaml', index)) for index in indices}
    assert len(pod_commands) == 1
    environments = [
        checkout.make_environment(program_cache) | make_pod_environment('kubernetes.yaml', index) | coordinator
        for index in indices
    ]
    results = checkout.run_together(
        [*pod_commands.pop(), *checkout.TINY, f'--config.data_dir={tiny_dir}'], environments, cwd=top
    )
    assert [code for code, _ in results] == [0, 0], results
    assert '2 processes (Kubernetes), mesh 1x2' in results[0][1]
    assert json.loads((top / 'runs/two_device_demo/result.json').read_text())['steps'] == 2


def test_sweep_job_has_a_pod_for_each_point(tmp_path, program_cache):
    """As `--count` prints; the last pod's command, as written, runs the last point: a small program in its place."""
    top = checkout.copy(tmp_path / 'top')
    programs.write_program(top)
    (top / 'runs').mkdir()
    programs.write_script(top / 'runs', {})
    last = load_job('kubernetes_sweep.yaml')[0]['completions'] - 1
    command = make_pod_command('kubernetes_sweep.yaml', last)
    environment = checkout.make_environment(program_cache) | make_pod_environment('kubernetes_sweep.yaml', last)
    counted = subprocess.run(
        [*command[:-1], '--count'], cwd=top, env=environment, capture_output=True, text=True, check=True
    )
    assert command[-1] == f'--index={last}'
    assert int(counted.stdout) == last + 1
    ((code, error),) = checkout.run_together([*command, '--module=program'], [environment], cwd=top)
    assert code == 0, error
    (result,) = (top / 'runs/sweep').glob('*/result.json')
    assert result.parent.name == 'learning_rate=0.01,seed=2'
    (started,) = programs.load_starts(result.parent)
    given = {'config': 'configs/two_device.py', 'config.learning_rate': '0.01', 'config.seed': '2'}
    assert started['options'] | given == started['options']
