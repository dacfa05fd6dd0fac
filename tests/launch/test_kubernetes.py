"""launch/kubernetes*.yaml: their commands run as written, and what they make of each exit code.

That they are what Kubernetes accepts is tested in tests/extras/test_kubernetes_schemas.py.
"""

import json
import re
import subprocess

import checkout
import commands
import pytest
import yaml
from slurm_cluster import free_ports

from alexnet_jax import FAILED, INTERRUPTED, LOST
from alexnet_jax.parallel.processes import Group, find_group

JOBS = ('kubernetes.yaml', 'kubernetes_sweep.yaml')


def documents(name):
    """{kind: resource} of a file, of claims {name: resource}."""
    found = list(yaml.safe_load_all((commands.ROOT / 'launch' / name).read_text()))
    return {each['metadata']['name'] if 'Claim' in each['kind'] else each['kind']: each for each in found}


def job(name):
    """The Job's spec, its pods' spec, and their only container."""
    spec = documents(name)['Job']['spec']
    pod = spec['template']['spec']
    (container,) = pod['containers']
    return spec, pod, container


def pod_environment(name, index):
    """The variables that pod `index` finds: those of the file, and the one that the Job controller adds."""
    given = {variable['name']: variable['value'] for variable in job(name)[2].get('env', ())}
    return given | {'JOB_COMPLETION_INDEX': str(index)}


def pod_command(name, index):
    """What the kubelet starts in that pod: command (or the image's entry point) and arguments, $(NAME) put in."""
    _, _, container = job(name)
    words = [*(container.get('command') or checkout.entrypoint()), *container['args']]
    variables = pod_environment(name, index)
    return [re.sub(r'\$\((\w+)\)', lambda match: variables[match[1]], word) for word in words]


def after(name, code):
    """What the Job does when a pod's container leaves with `code`: the first rule that matches, else it counts."""
    spec, _, container = job(name)
    for rule in spec['podFailurePolicy']['rules']:
        codes = rule.get('onExitCodes')
        if codes:
            assert codes['operator'] == 'In' and codes['containerName'] == container['name']
            if code in codes['values']:
                return rule['action']
    return 'Count'


@pytest.mark.parametrize('name', JOBS)
def test_what_asks_for_a_new_start_gets_one_and_an_error_does_not(name):
    assert {code: after(name, code) for code in (LOST, INTERRUPTED, 137, 143, 134)} == {
        LOST: 'Ignore', INTERRUPTED: 'Ignore', 137: 'Count', 143: 'Count', 134: 'Count',
    }  # fmt: skip
    assert after(name, FAILED) == ('FailJob' if name == 'kubernetes.yaml' else 'FailIndex')
    spec, pod, _ = job(name)
    assert spec['backoffLimit' if name == 'kubernetes.yaml' else 'backoffLimitPerIndex'] > 0
    assert pod['restartPolicy'] == 'Never'  # Kubernetes refuses a podFailurePolicy with another
    assert pod['terminationGracePeriodSeconds'] >= 60
    disrupted = [rule['action'] for rule in spec['podFailurePolicy']['rules'] if 'onPodConditions' in rule]
    assert disrupted == ['Ignore']


@pytest.mark.parametrize('name', JOBS)
def test_pods_agree_with_the_image_and_the_claims(name):
    spec, pod, container = job(name)
    assert spec['completionMode'] == 'Indexed'
    dockerfile = (commands.ROOT / 'Dockerfile').read_text()
    assert f'USER {pod["securityContext"]["runAsUser"]}\n' in dockerfile
    top = re.search(r'^WORKDIR (\S+)$', dockerfile, re.MULTILINE)[1]
    claims = {volume['name']: volume.get('persistentVolumeClaim', {}).get('claimName') for volume in pod['volumes']}
    mounts = {mount['mountPath']: claims[mount['name']] for mount in container['volumeMounts']}
    assert mounts == {f'{top}/data': 'alexnet-data', f'{top}/runs': 'alexnet-runs', '/dev/shm': None}
    assert {'alexnet-data', 'alexnet-runs'} == set(documents('kubernetes_storage.yaml'))
    (workdir,) = (word for word in container['args'] if word.startswith('--workdir='))
    assert workdir.startswith('--workdir=runs/')


def test_every_pod_finds_its_place_and_the_name_of_the_first():
    service, spec, pod = documents('kubernetes.yaml')['Service'], *job('kubernetes.yaml')[:2]
    name = documents('kubernetes.yaml')['Job']['metadata']['name']
    (port,) = (port['port'] for port in service['spec']['ports'])
    assert service['spec']['clusterIP'] == 'None'  # the word, in YAML; it makes the Service headless
    assert service['spec']['selector'] == {'batch.kubernetes.io/job-name': name}
    assert pod['subdomain'] == service['metadata']['name']
    assert spec['completions'] == spec['parallelism']
    for index in range(spec['completions']):
        assert find_group(environment=pod_environment('kubernetes.yaml', index)) == Group(
            index=index,
            count=spec['completions'],
            coordinator=f'{name}-0.{pod["subdomain"]}:{port}',
            found='Kubernetes',
        )


def test_two_pods_train_as_the_file_says(tmp_path, tiny_dir, program_cache):
    """On loopback, where no Service gives alexnet-0.alexnet an address: that one variable is another."""
    top = checkout.copy(tmp_path)
    meeting = {'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{free_ports(1)[0]}'}
    indices = range(job('kubernetes.yaml')[0]['completions'])
    commands_of_pods = {tuple(pod_command('kubernetes.yaml', index)) for index in indices}
    assert len(commands_of_pods) == 1
    environments = [
        checkout.environment(program_cache) | pod_environment('kubernetes.yaml', index) | meeting for index in indices
    ]
    ended = checkout.run_together(
        [*commands_of_pods.pop(), *checkout.TINY, f'--config.data_dir={tiny_dir}'], environments, cwd=top
    )
    assert [code for code, _ in ended] == [0, 0], ended
    assert '2 processes (Kubernetes), mesh 1x2' in ended[0][1]
    assert json.loads((top / 'runs/two_device_demo/result.json').read_text())['steps'] == 2


def test_the_sweep_has_a_pod_for_each_point(tmp_path, tiny_dir, program_cache):
    """`--count` says so; the last pod's command, as written, runs the last point."""
    top = checkout.copy(tmp_path)
    last = job('kubernetes_sweep.yaml')[0]['completions'] - 1
    command = pod_command('kubernetes_sweep.yaml', last)
    environment = checkout.environment(program_cache) | pod_environment('kubernetes_sweep.yaml', last)
    counted = subprocess.run(
        [*command[:-1], '--count'], cwd=top, env=environment, capture_output=True, text=True, check=True
    )
    assert command[-1] == f'--index={last}'
    assert int(counted.stdout) == last + 1
    ((code, error),) = checkout.run_together(
        [*command, *checkout.TINY, f'--config.data_dir={tiny_dir}'], [environment], cwd=top
    )
    assert code == 0, error
    (result,) = (top / 'runs/sweep').glob('*/result.json')
    assert result.parent.name == 'learning_rate=0.01,seed=2'
    assert json.loads(result.read_text())['steps'] == 2
