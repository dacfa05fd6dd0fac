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
    'data': {'model/variants', 'model/catalogue'},
    'training': {'model', 'parallel', 'data'},
    'evaluation': {'model', 'parallel', 'data', 'training/step'},
    'figures': {'model', 'parallel', 'data', 'training', 'evaluation'},
    'running': {'model', 'parallel', 'data', 'training', 'evaluation', 'interchange', 'figures'},
    'benchmark': {'model', 'parallel', 'data', 'training'},
    'sweeping': {'training'},
    'interchange': {'model', 'parallel', 'data', 'training'},
    'diagnosis': {'model', 'parallel', 'data', 'training'},
}
COLLECTIVES = {
    *('psum', 'pmean', 'pmax', 'pmin', 'psum_scatter', 'all_gather', 'all_gather_invariant', 'all_to_all'),
    *('ppermute', 'pshuffle', 'pswapaxes', 'pbroadcast', 'ragged_all_to_all', 'reduce_scatter', 'axis_index'),
}

# What runs what it reads; NumPy's own reader does not, unless told to.
RUNS_ITS_INPUT = {'pickle', 'cPickle', '_pickle', 'cloudpickle', 'dill', 'joblib', 'marshal', 'shelve', 'jsonpickle'}
RUNS_ITS_INPUT_CALLS = {
    *('eval', 'exec', 'compile', '__import__', 'os.system', 'os.popen', 'builtins.eval', 'builtins.exec'),
    *('yaml.load', 'yaml.full_load', 'yaml.unsafe_load', 'torch.load', 'np.load', 'numpy.load', 'pandas.read_pickle'),
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
    [
        ('flax', 'model/alexnet.py'),
        ('orbax', 'training/storage.py'),
        ('tensorboardX', 'training/records.py'),
        *((tracker, 'training/trackers.py') for tracker in ('wandb', 'mlflow', 'trackio')),
        ('optuna', 'sweeping/search.py'),
        ('sklearn', 'evaluation/neighbours.py'),
    ],
)
def test_a_library_stays_behind_one_file(library, home):
    assert importers(library) == [home]


def importers(library):
    return [name for name, tree in TREES.items() if library in {m.split('/')[0] for m in imported(tree)}]


def test_pictures_are_drawn_in_their_room_and_of_sweeps():
    names = [name for name in importers('matplotlib') if not name.startswith('figures/')]
    assert names == ['sweeping/figure.py']


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
    assert callers == {'parallel/exchange.py': {'all_gather', 'pmean', 'psum', 'psum_scatter', 'axis_index'}}


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
    """Those of the process: with flag_values= something is only read by absl's rules.

    What two commands share is defined where it is written once, when one of them asks for it.
    """
    shared = 'running/process_flags.py'
    importers = {name for name, tree in TREES.items() if any('process_flags' in module for module in imported(tree))}
    assert importers and importers <= set(COMMANDS)
    assert not any(isinstance(node, ast.Assign) for node in TREES[shared].body)  # nothing is defined by importing it
    for name, tree in TREES.items():
        if name == shared:
            continue
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        own = [node for node in calls if 'flag_values' not in {keyword.arg for keyword in node.keywords}]
        defines = any('.DEFINE_' in ast.unparse(node.func) for node in own)
        assert defines == (name in COMMANDS), name


def hazards(tree):
    """The calls and imports of a file by which data could become a program."""
    found = {module for module in imported(tree) if module.split('/')[0] in RUNS_ITS_INPUT}
    found |= {module for module in imported(tree) if module in ('yaml/load', 'torch/load', 'os/system', 'os/popen')}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, options = ast.unparse(node.func), {keyword.arg: keyword.value for keyword in node.keywords}
        plain = name in ('np.load', 'numpy.load') and len(node.args) == 1 and None not in options
        allows = options.get('allow_pickle', ast.Constant(False))
        plain = plain and isinstance(allows, ast.Constant) and allows.value is False
        if name in RUNS_ITS_INPUT_CALLS and not plain:
            found.add(name)
        shell = options.get('shell')
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            found.add(f'{name}(shell)')
    return found


@pytest.mark.parametrize(
    ('source', 'found'),
    [
        ('import pickle', {'pickle'}),
        ('from pickle import loads', {'pickle', 'pickle/loads'}),
        ('eval(text)', {'eval'}),
        ('yaml.load(file)', {'yaml.load'}),
        ('from yaml import load', {'yaml/load'}),
        ('torch.load(file)', {'torch.load'}),
        ('np.load(file, allow_pickle=True)', {'np.load'}),
        ('np.load(file, None, True)', {'np.load'}),
        ('np.load(file, **options)', {'np.load'}),
        ('np.load(file)', set()),
        ('np.load(file, allow_pickle=False)', set()),
        ('subprocess.run(text, shell=True)', {'subprocess.run(shell)'}),
        ('lowered.compile()', set()),
    ],
)
def test_hazards_are_seen(source, found):
    assert hazards(ast.parse(source)) == found


def test_nothing_that_is_read_can_run():
    """Only a config file is a program, and says so."""
    paths = [path for room in ('alexnet_jax', 'configs', 'launch') for path in (PACKAGE.parent / room).rglob('*.py')]
    assert len(paths) > 80
    found = {path.relative_to(PACKAGE.parent).as_posix(): hazards(ast.parse(path.read_text())) for path in paths}
    assert {name: calls for name, calls in found.items() if calls} == {}
