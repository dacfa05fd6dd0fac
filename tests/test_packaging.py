"""pyproject.toml, requirements.txt and the files about the release agree with one another and with the package."""

import ast
import fnmatch
import importlib.metadata
import pathlib
import re
import sys
import tomllib

import cli
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import alexnet_jax

PYPROJECT = tomllib.loads((cli.ROOT / 'pyproject.toml').read_text())
PROJECT = PYPROJECT['project']
EXTRAS = PROJECT['optional-dependencies']
DECLARED = [Requirement(line) for lines in (PROJECT['dependencies'], *EXTRAS.values()) for line in lines]
PACKAGE = pathlib.Path(alexnet_jax.__file__).parent
TRACKIO = 'trackio'  # installed with --no-deps; pyproject.toml says why
# Distributions that may not be installed here and are not called like their module.
DISTRIBUTIONS = {'mlflow': ['mlflow-skinny'], 'tensorflow': ['tensorflow-cpu']}


@pytest.fixture(scope='module')
def pins():
    """{distribution: version} of requirements.txt."""
    lines = [line for line in (cli.ROOT / 'requirements.txt').read_text().splitlines() if not line.startswith('#')]
    pairs = [re.fullmatch(r'([\w.-]+)==([\w.+]+)', line).groups() for line in lines]
    pinned = {canonicalize_name(name): version for name, version in pairs}
    assert len(pinned) == len(lines)
    return pinned


def test_requirements_pin_every_declared_dependency(pins):
    for requirement in DECLARED:
        if requirement.name != PROJECT['name']:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
    assert TRACKIO in pins


def test_requirements_pin_every_transitive_dependency(pins):
    """Of what is installed here, at any depth."""
    waiting = [requirement for requirement in DECLARED if requirement.name != PROJECT['name']]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, key := frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, key))
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({'extra': e}) for e in requirement.extras or {''}):
                waiting.append(need)
    assert {name for name, _ in seen} - set(pins) == set()
    assert len(seen) > 80


def test_requirements_give_plugins_the_version_of_jax(pins):
    plugins = {name: version for name, version in pins.items() if name.startswith('jax-cuda') or name == 'jaxlib'}
    assert len(plugins) == 5  # jaxlib, and plugin and pjrt of CUDA 12 and 13
    assert set(plugins.values()) == {pins['jax']}


@pytest.mark.slow
def test_package_imports_only_declared_dependencies():
    modules = set()
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.split('.')[0])
    modules -= {*sys.stdlib_module_names, 'alexnet_jax'}
    installed = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in DECLARED} | {TRACKIO}
    for module in modules:
        names = DISTRIBUTIONS.get(module) or installed.get(module) or [module]
        assert declared & {canonicalize_name(name) for name in names}, module


def test_wheel_holds_every_data_file():
    patterns = PYPROJECT['tool']['setuptools']['package-data']['*']
    others = [path for path in PACKAGE.rglob('*') if path.is_file() and path.suffix not in ('.py', '.pyc')]
    assert others
    assert [path for path in others if not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)] == []


def test_python_versions_agree():
    """Of requires-python, the classifiers and the Makefile's own check."""
    supported = [f'3.{minor}' for minor in range(30) if f'3.{minor}.0' in SpecifierSet(PROJECT['requires-python'])]
    prefix = 'Programming Language :: Python :: '
    assert [line.removeprefix(prefix) for line in PROJECT['classifiers'] if line.startswith(prefix)] == supported
    lowest, above = re.search(r'\(3, (\d+)\) <= sys\.version_info < \(3, (\d+)\)', read('Makefile')).groups()
    assert [f'3.{minor}' for minor in range(int(lowest), int(above))] == supported


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load(read('CITATION.cff'))
    assert PROJECT['version'] == alexnet_jax.__version__ == citation['version']
    assert f'## [{PROJECT["version"]}]' in read('CHANGELOG.md')
    assert citation['cff-version'] == '1.2.0' and citation['license'] == PROJECT['license']


def read(name):
    return (cli.ROOT / name).read_text()
