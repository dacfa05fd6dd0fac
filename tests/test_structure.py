"""The house's rules, read from the sources: who may import whom, and who alone does what."""

import ast
import pathlib

import pytest

import alexnet_jax

PACKAGE = pathlib.Path(alexnet_jax.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob('*.py')}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}
COMMANDS = sorted(name for name in SOURCES if '/' not in name and name != '__init__.py')

# What each room may import of the others, besides itself; 'FILE' grants one file.
ALLOWED = {
    'model': set(),
    'parallel': set(),
    'data': {'model/variants'},
    'training': {'model', 'parallel', 'data'},
    'evaluation': {'model', 'parallel', 'data', 'training/step'},
    'running': {'model', 'parallel', 'data', 'training', 'evaluation'},
    'benchmark': {'model', 'parallel', 'data', 'training'},
}
COLLECTIVES = {
    *('psum', 'pmean', 'pmax', 'pmin', 'psum_scatter', 'all_gather', 'all_gather_invariant', 'all_to_all'),
    *('ppermute', 'pshuffle', 'pswapaxes', 'pbroadcast', 'ragged_all_to_all', 'reduce_scatter', 'axis_index'),
}


def imported(tree):
    """Every module that a file imports, at any depth of it, as 'a/b/c'; with `from a.b import c` both a/b and a/b/c."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'imports are absolute here'
            modules |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
    return {module.replace('.', '/') for module in modules}


def own_modules(tree):
    """The package's modules that a file imports: 'model/layers', ... ('' is the package itself)."""
    names = {name.removesuffix('.py') for name in SOURCES}
    inner = {module.removeprefix('alexnet_jax/') for module in imported(tree) if module.startswith('alexnet_jax/')}
    return {module for module in inner if module in names}


def test_every_file_is_in_a_known_room():
    rooms = {name.split('/')[0] for name in SOURCES if '/' in name}
    assert rooms == set(ALLOWED)
    assert {'main.py', 'audit.py', 'bench.py', 'prepare.py'} <= set(COMMANDS)


@pytest.mark.parametrize('name', sorted(name for name in SOURCES if '/' in name))
def test_rooms_import_downwards_only(name):
    room = name.split('/')[0]
    grants = ALLOWED[room] | {room}
    strangers = {module for module in own_modules(TREES[name]) if not {module, module.split('/')[0]} & grants}
    assert not strangers, f'{name} imports {strangers}'


def test_commands_are_imported_by_nobody():
    commands = {name.removesuffix('.py') for name in COMMANDS}
    assert {name: own_modules(tree) & commands for name, tree in TREES.items() if own_modules(tree) & commands} == {}


@pytest.mark.parametrize(
    ('library', 'home'),
    [('flax', 'model/alexnet.py'), ('orbax', 'training/storage.py'), ('tensorboardX', 'training/records.py')],
)
def test_a_library_stays_behind_one_file(library, home):
    assert [name for name, tree in TREES.items() if library in {m.split('/')[0] for m in imported(tree)}] == [home]


def test_tensorflow_is_imported_nowhere():
    assert [name for name, tree in TREES.items() if 'tensorflow' in {m.split('/')[0] for m in imported(tree)}] == []


def test_only_the_exchange_calls_collectives():
    """By name, wherever it comes from: lax.psum, jax.lax.psum, or psum imported."""
    callers = {}
    for name, tree in TREES.items():
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {module.rsplit('/', 1)[-1] for module in imported(tree) if module.startswith('jax/')}
        if used & COLLECTIVES:
            callers[name] = used & COLLECTIVES
    assert callers == {'parallel/exchange.py': {'all_gather', 'pmean', 'psum', 'axis_index'}}


def test_no_check_is_switched_off_and_no_pmap():
    for name, tree in TREES.items():
        keywords = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
        names = {getattr(node, 'attr', getattr(node, 'id', None)) for node in ast.walk(tree)}
        assert not keywords & {'check_vma', 'check_rep'}, name
        assert not names & {'pmap', 'xmap'}, name


@pytest.mark.parametrize('name', COMMANDS)
def test_commands_are_short(name):
    assert len(SOURCES[name].splitlines()) < 80


def test_flags_are_defined_in_commands_only():
    for name, tree in TREES.items():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        defines = any('.DEFINE_' in call for call in calls)
        assert defines == (name in COMMANDS), name
