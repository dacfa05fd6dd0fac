"""The house's rules, read from the sources: who may import whom, and who alone does what."""

import ast
import pathlib

import pytest

import alexnet_jax
from alexnet_jax.__main__ import VERBS
from alexnet_jax.training.config import TRACKING

PACKAGE = pathlib.Path(alexnet_jax.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob('*.py')}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}
# From low to high: a room imports those before it and itself. The four tools stand side by side: none imports another.
ORDER = (
    *('errors', 'console', 'files', 'model', 'sharding', 'data', 'training', 'distributed', 'checkpoints', 'logs'),
    *('communication', 'weights', 'evaluation', 'run', 'report', 'doctor', 'sweep', 'benchmark', 'library'),
    *('commands', 'main', '__main__', '__init__'),
)
TOOLS = {'report', 'doctor', 'sweep', 'benchmark'}
COMMANDS = sorted(name for name in SOURCES if name.startswith('commands/') and not name.endswith('__init__.py'))
SHARED = {
    f'commands/{name}.py' for name in ('command_line', 'dispatch', 'interrupts', 'network_flags', 'process_flags')
}  # by the verbs
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


def room_of(name):
    return name.split('/')[0].removesuffix('.py')


def test_rooms_are_known():
    assert {room_of(name) for name in SOURCES} <= set(ORDER)


@pytest.mark.parametrize('name', sorted(SOURCES))
def test_rooms_import_downwards_only(name):
    room = room_of(name)
    allowed = {*ORDER[: ORDER.index(room)], room} - (TOOLS - {room} if room in TOOLS else set())
    strangers = {module for module in own_modules(TREES[name]) if module and room_of(module) not in allowed}
    assert not strangers, f'{name} imports {strangers}'


def test_files_form_no_circle():
    reached = {name.removesuffix('.py').removesuffix('/__init__'): own_modules(tree) for name, tree in TREES.items()}
    done = set()

    def walk(module, path):
        assert module not in path, f'a circle: {" -> ".join((*path, module))}'
        if module not in done:
            for target in reached[module] - {module}:
                walk(target, (*path, module))
            done.add(module)

    for module in reached:
        walk(module, ())


def test_file_names_are_unique():
    """But for the verbs', which are called like what they call."""
    names = [name.rsplit('/', 1)[-1] for name in SOURCES if not name.startswith('commands/') and '__init__' not in name]
    assert sorted(names) == sorted(set(names))


def test_verbs_are_imported_by_the_dispatcher_only():
    verbs = {name.removesuffix('.py') for name in COMMANDS if name not in SHARED}
    assert {name: own_modules(tree) & verbs for name, tree in TREES.items() if own_modules(tree) & verbs} == {}
    assert {verb.removeprefix('commands/').replace('_', '-') for verb in verbs} == set(VERBS) - {'train'}


@pytest.mark.parametrize(
    ('library', 'home'),
    [
        ('flax', 'model/alexnet.py'),
        ('orbax', 'checkpoints/orbax_io.py'),
        ('tensorboardX', 'logs/writers.py'),
        *((tracker, 'logs/trackers.py') for tracker in TRACKING),
        ('optuna', 'sweep/search.py'),
        ('sklearn', 'evaluation/probe_classifiers.py'),
        ('h5py', 'weights/hdf5_dump.py'),
        ('scipy', 'evaluation/predict_photos.py'),
    ],
)
def test_a_library_stays_behind_one_file(library, home):
    assert importers(library) == [home]


def importers(library):
    return sorted(name for name, tree in TREES.items() if library in {m.split('/')[0] for m in imported(tree)})


def test_pictures_are_drawn_in_few_files():
    names = sorted(name for name in importers('matplotlib') if not name.startswith('report/'))
    assert names == [
        'evaluation/corruption_picture.py',
        'evaluation/explain_picture.py',
        'evaluation/figure_4.py',
        'evaluation/probe_picture.py',
        'sweep/plot.py',
    ]


@pytest.mark.parametrize(
    ('library', 'peers'),
    [('tensorflow', ['tf_data.py']), ('torch', ['torch_alexnet.py', 'torch_loader.py'])],
)
def test_other_frameworks_are_imported_in_benchmark_peers_only(library, peers):
    assert importers(library) == [f'benchmark/peers/{name}' for name in peers]


def test_only_the_exchange_calls_collectives():
    """By name, wherever it comes from: lax.psum, jax.lax.psum, or psum imported."""
    callers = {}
    for name, tree in TREES.items():
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {module.rsplit('/', 1)[-1] for module in imported(tree) if module.startswith('jax/')}
        if used & COLLECTIVES:
            callers[name] = used & COLLECTIVES
    assert callers == {'sharding/collectives.py': {'all_gather', 'pmean', 'psum', 'psum_scatter', 'axis_index'}}


def test_no_check_is_switched_off_and_no_pmap():
    for name, tree in TREES.items():
        keywords = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
        names = {getattr(node, 'attr', getattr(node, 'id', None)) for node in ast.walk(tree)}
        assert not keywords & {'check_vma', 'check_rep'}, name
        assert not names & {'pmap', 'xmap'}, name


@pytest.mark.parametrize('name', [name for name in COMMANDS if name not in SHARED])
def test_commands_are_short(name):
    assert len(SOURCES[name].splitlines()) < 130


def test_flags_are_defined_in_commands_only():
    """Those of the process: with flag_values= something is only read by absl's rules.

    What two commands share is defined where it is written once, when one of them asks for it.
    """
    for name in ('network_flags', 'process_flags'):
        assert not any(isinstance(node, ast.Assign) for node in TREES[f'commands/{name}.py'].body)
    for name, tree in TREES.items():
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        own = [node for node in calls if 'flag_values' not in {keyword.arg for keyword in node.keywords}]
        defines = any('.DEFINE_' in ast.unparse(node.func) for node in own)
        assert not defines or name in COMMANDS or name == 'main.py', name


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
    """Only a config file is a program, and says so; a state dict's pickle is read by a closed list of instructions."""
    paths = [path for room in ('alexnet_jax', 'configs') for path in (PACKAGE.parent / room).rglob('*.py')]
    assert len(paths) > 80
    found = {path.relative_to(PACKAGE.parent).as_posix(): hazards(ast.parse(path.read_text())) for path in paths}
    assert {name: calls for name, calls in found.items() if calls} == {
        'alexnet_jax/weights/torch_pickle.py': {'pickle'}
    }
