"""What messages tell a user to do: options and verbs that are there, and remedies that work when they are followed."""

import ast
import functools
import itertools
import re

import cli
import jax
import pytest
from builders import run_with

from alexnet_jax.__main__ import VERBS
from alexnet_jax.errors import InputError
from alexnet_jax.run.run_dir import check_run_dir, claim_run_dir
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.sweep.plan import apply_overrides
from alexnet_jax.training.build import build_run
from alexnet_jax.training.config import KEYS, make_config
from alexnet_jax.training.validation import validate_config

PATHS = sorted((cli.ROOT / 'alexnet_jax').rglob('*.py'))
# absl's own, TensorBoard's, pip's --no-deps, git's; --sweep.KEY; alexnet --version
OF_OTHERS = {'help', 'helpfull', 'logdir', 'no', 'always', 'dirty', 'abbrev', 'sweep', 'version'}


def iter_texts(path):
    """Yields (line, text) of the strings of a file but its docstrings; what an f-string takes in is '{}'."""
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, ''.join(part.value if isinstance(part, ast.Constant) else '{}' for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (inside | prose):
            yield node.lineno, node.value


TEXTS = [(path, *entry) for path in PATHS for entry in iter_texts(path)]


@functools.cache
def read_flags():
    """{verb or file of commands/: names of its flags}, and {verb: those that it requires}."""
    flags, required = {}, {}
    for path in (*(cli.ROOT / 'alexnet_jax/commands').glob('*.py'), cli.ROOT / 'alexnet_jax/main.py'):
        text, verb = path.read_text(), path.stem.replace('main', 'train')
        flags[verb] = set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", text))
        marked = ' '.join(re.findall(r'mark_flags?_as_required\((.*?)\)', text))
        alone = re.findall(r"DEFINE_\w+\(\s*'(\w+)'[^)]*required=True", text)
        required[verb] = {*re.findall(r"'(\w+)'", marked), *alone}
    return flags, required


def test_messages_name_options_that_there_are():
    known = set.union(*read_flags()[0].values()) | OF_OTHERS
    for path, line, text in TEXTS:
        for option, key in re.findall(r'--([a-z][a-z_]*)(?:\.([a-z][a-z_]*))?', text):
            assert option in known or option.startswith('xla_'), f'{path}:{line} names --{option}'
            assert option != 'config' or not key or key in KEYS, f'{path}:{line} names --config.{key}'


def test_messages_name_verbs_with_what_they_require():
    found = 0
    for path, line, text in TEXTS:
        for verb, rest in re.findall(r'\balexnet ([a-z]+)\b([^`;]*)', text):
            assert verb in VERBS, f'{path}:{line} names alexnet {verb}'
            missing = '--' in rest and {flag for flag in read_flags()[1][verb] if f'--{flag}' not in rest}
            assert not missing, f'{path}:{line}: alexnet {verb} needs {missing}'
            found += 1
    assert found > 5


def follow(message):
    """The options of the config that a message names, as {key: text}."""
    found = dict(re.findall(r'--config\.(\w+)=(\S+?)[;,]?(?= |$)', str(message)))
    assert found, message
    return found


@pytest.mark.parametrize(
    'values',
    [
        {'variant': 'cifar10_18pct', 'parallelism': 'one_weird_trick', 'mesh': (1, 2)},
        {'variant': 'cifar10_18pct', 'parallelism': 'one_weird_trick', 'mesh': (2, 4)},
        {'without': ('exchange',), 'parallelism': 'one_weird_trick', 'mesh': (1, 2)},
        {'without': ('exchange',), 'parallelism': 'one_weird_trick', 'mesh': (2, 4)},
        {'variant': 'caffenet', 'mesh': (1, 2)},
        {'variant': 'caffenet', 'mesh': (4, 2)},
        {'without': ('towers',), 'mesh': (2, 2)},
    ],
)
def test_config_remedies_work_when_followed(values):
    config = make_config('tiny')
    config.update(values)
    with pytest.raises(InputError) as refused:
        validate_config(config)
    validate_config(apply_overrides(config, follow(refused.value)))


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        ({}, {'seed': 3}),
        ({}, {'batch_size': 16, 'width': 0.5}),
        ({}, {'variant': 'caffenet'}),
        ({'steps': 9}, {'steps': 5}),
    ],
)
def test_run_folder_remedies_work_when_followed(tiny, tmp_path, before, after):
    claim_run_dir(tmp_path, run_with(mesh=(1, 1), **before), tiny)
    (tmp_path / 'checkpoints/9').mkdir(parents=True)
    with pytest.raises(InputError) as refused:
        check_run_dir(tmp_path, run_with(mesh=(1, 1), **after), tiny)
    config = make_config('tiny', mesh=(1, 1))
    config.update({'batch_size': 8} | after)
    config = validate_config(apply_overrides(config, follow(refused.value)))
    check_run_dir(tmp_path, build_run(config, num_classes=3, examples=40), tiny)


def test_mesh_remedies_work_when_followed():
    """With any number of devices, of which CPUs have as many as are asked for."""
    for count, data, tower in itertools.product(range(1, 9), (1, 2, 3, 4, 6, 8), (1, 2)):
        if count % (data * tower) == 0:
            continue
        devices = jax.devices()[:count]
        with pytest.raises(InputError) as refused:
            make_mesh(data, tower, devices=devices)
        ((first, second),) = re.findall(r'mesh of (\d),(\d)', str(refused.value))
        make_mesh(int(first), int(second), devices=devices)
        assert data % int(first) == 0  # a batch that the one divides the other divides too
