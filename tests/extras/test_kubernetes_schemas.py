"""launch/kubernetes*.yaml against Kubernetes' published schema, which its Python client holds.

The client itself drops what it does not know; here a name that it does not know is refused, at any depth.
"""

import re

import cli
import pytest
import yaml
from extras.conftest import extra

client = extra('kubernetes.client')

FILES = sorted(path.name for path in (cli.ROOT / 'launch').glob('*.yaml'))
MODELS = {
    ('v1', 'PersistentVolumeClaim'): 'V1PersistentVolumeClaim',
    ('v1', 'Service'): 'V1Service',
    ('batch/v1', 'Job'): 'V1Job',
}


def load_documents(name):
    return list(yaml.safe_load_all((cli.ROOT / 'launch' / name).read_text()))


def find_unknown_names(value, type_name, place):
    """Where `value` has a name that its type does not: 'V1Job', 'List[V1Container]', 'Dict[str, str]', 'str', ..."""
    inner = re.fullmatch(r'(?:list\[|dict\(str, |dict\[str, )(.*)[\])]', type_name, re.IGNORECASE)
    model = getattr(client, type_name, None)
    if not (inner or model):
        return []
    parts = dict(value.items() if isinstance(value, dict) else enumerate(value))
    if inner:
        types = dict.fromkeys(parts, inner[1])
    else:
        types = {name: model.openapi_types[attribute] for attribute, name in model.attribute_map.items()}
    found = []
    for key, part in parts.items():
        there = f'{place}.{key}'
        found += find_unknown_names(part, types[key], there) if key in types else [there]
    return found


def check(document):
    """Fails unless every name is known and every value of the type that the schema wants."""
    name = MODELS[document['apiVersion'], document['kind']]
    assert find_unknown_names(document, name, document['kind']) == []
    getattr(client, name).model_validate(document, by_alias=True)


def test_schema_is_asked_about_every_file():
    assert FILES == ['kubernetes.yaml', 'kubernetes_storage.yaml', 'kubernetes_sweep.yaml']


@pytest.mark.parametrize('name', FILES)
def test_schema_accepts_every_file(name):
    found = load_documents(name)
    assert found
    for document in found:
        check(document)


def make_spoilt_job(change):
    (job,) = (document for document in load_documents('kubernetes.yaml') if document['kind'] == 'Job')
    change(job['spec'], job['spec']['template']['spec']['containers'][0])
    return job


def rule(spec):
    return spec['podFailurePolicy']['rules'][0]


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (lambda spec, container: spec.update(backOffLimit=3), "'Job.spec.backOffLimit'"),
        (
            lambda spec, container: container['volumeMounts'][0].update(path='/a'),
            "'Job.spec.template.spec.containers.0.volumeMounts.0.path'",
        ),
        (lambda spec, container: rule(spec)['onExitCodes'].update(value=1), 'rules.0.onExitCodes.value'),
        (lambda spec, container: spec.update(completions='2'), 'spec.completions\n  Input should be a valid integer'),
        (lambda spec, container: container['env'][0].update(value=2), 'env.0.value\n  Input should be a valid string'),
        (lambda spec, container: container.pop('name'), 'containers.0.name\n  Field required'),
        (lambda spec, container: rule(spec).pop('action'), 'podFailurePolicy.rules.0.action\n  Field required'),
    ],
)
def test_schema_refuses_unknown_names_and_types(change, says):
    with pytest.raises((AssertionError, ValueError), match=re.escape(says)):
        check(make_spoilt_job(change))
