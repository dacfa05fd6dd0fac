"""The order of turns, and what a machine must have."""

import contextlib
import dataclasses

import pytest

from alexnet_jax.benchmark import measure
from alexnet_jax.benchmark.measure import Turns
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.sampling import Sample
from alexnet_jax.errors import InputError

SETTING = Setting(batch=8, width=1.0, classes=10, allocator='default')
TORCH = ['torch_eager', 'torch_eager_channels_last', 'torch_compiled', 'torch_best']


class FakeWorker:
    """A process whose n-th sample takes n seconds."""

    def __init__(self, name, turns):
        self.name, self.turns, self.versions = name, turns, {f'{name} library': '1'}
        programs = {'ceilings': ['gemm_numpy', 'copy'], 'torch_ceiling': ['gemm_torch'], 'layers': ['train', 'row']}
        self.programs = {do: {'flop': 3, 'moved': 4} for do in programs.get(name, ['train', 'inference'])}

    def sample(self, program, *, seconds):
        self.turns.append((self.name, program, seconds))
        return Sample(1, float(len(self.turns)), 0.0, None, None)


@pytest.fixture
def turns(monkeypatch):
    """The samples taken, in order, with a gap of None before processes are started."""
    turns = []

    @contextlib.contextmanager
    def start_workers(names, setting):
        assert setting is SETTING
        turns.append(None)
        yield [FakeWorker(name, turns) for name in names]

    monkeypatch.setattr(measure, '_start_workers', start_workers)
    monkeypatch.setattr(measure, '_check_machine', lambda setting, torch: None)
    return turns


def run(*, torch=False, layers=False):
    lines = []
    return measure.measure_step(SETTING, Turns(2, 1.0, lines.append), torch=torch, layers=layers), lines


def test_measure_step_lets_programs_take_turns(turns):
    results, lines = run()
    one_round = [
        *(('one_device', do, 1.0) for do in ('train', 'inference')),
        *(('two_device', do, 1.0) for do in ('train', 'inference')),
        *(('ceilings', do, 1.0) for do in ('gemm_numpy', 'copy')),
    ]
    assert turns == [None, *one_round, *one_round]
    # turns counts the gap too
    assert results.network['one_device', 'train'].seconds == [2.0, 8.0]
    assert results.network['ceilings', 'copy'].seconds == [7.0, 13.0]
    assert (results.network['ceilings', 'copy'].flop, results.network['ceilings', 'copy'].moved) == (3, 4)
    assert results.layers == {}
    assert results.versions == {f'{name} library': '1' for name in ('one_device', 'two_device', 'ceilings')}
    assert lines[-1] == 'batch 8: round 2 of 2, training images/s: one_device 1.0, two_device 0.8'


def test_measure_step_runs_pytorch_among_them_and_layers_later(turns):
    results, _ = run(torch=True, layers=True)
    gap = turns.index(None, 1)
    networks = ['one_device', 'two_device', *TORCH]
    assert list(dict.fromkeys(name for name, _, _ in turns[1:gap])) == [*networks, 'ceilings', 'torch_ceiling']
    assert [turn[:2] for turn in turns[gap + 1 :]] == 2 * [
        ('layers', 'train'), ('layers', 'row'), ('ceilings', 'gemm_numpy'), ('ceilings', 'copy'),
        ('torch_ceiling', 'gemm_torch'),
    ]  # fmt: skip
    assert {seconds for _, _, seconds in turns[gap + 1 :]} == {0.1}
    assert len(results.layers['layers', 'row'].samples) == 2
    assert ('layers', 'row') not in results.network


@pytest.mark.parametrize(
    ('missing', 'message'),
    [
        ('torch', r"pip install 'alexnet-jax\[torch\]'"),
        ('compiler', r'install g\+\+'),
        ('glibc', 'give --allocator=default'),
    ],
)
def test_check_machine_names_what_is_missing(monkeypatch, missing, message):
    monkeypatch.setattr(measure.importlib.util, 'find_spec', lambda name: None if missing == name else 'found')
    monkeypatch.setattr(measure.shutil, 'which', lambda name: None if missing == 'compiler' else '/usr/bin/' + name)
    monkeypatch.setattr(measure, 'has_glibc', lambda: missing != 'glibc')
    tuned = Setting(batch=8, width=1.0, classes=10, allocator='tuned')
    with pytest.raises(InputError, match=message):
        measure._check_machine(tuned, torch=True)
    measure._check_machine(SETTING, torch=False)  # needs none of it


def test_start_workers_closes_all_when_one_breaks(monkeypatch):
    workers = []

    class BreakingWorker:
        def __init__(self, name, command, setting, *, environment):
            self.name, self.command, self.closed = name, command, False
            workers.append(self)

        def wait_until_ready(self):
            if self.name == 'torch_best':
                raise RuntimeError('broke')

        def close(self):
            self.closed = True

    monkeypatch.setattr(measure, 'Worker', BreakingWorker)
    with pytest.raises(RuntimeError, match='broke'), measure._start_workers(['one_device', 'torch_best', 'x'], SETTING):
        pytest.fail('not started')
    assert [worker.closed for worker in workers] == [True] * 3
    assert workers[0].command == ['-m', 'alexnet_jax.benchmark.worker', 'one_device']
    assert workers[1].command == ['-m', 'alexnet_jax.benchmark.worker', 'torch_best']


def test_measure_accelerator_has_one_process_at_a_time_and_leaves_out_one_that_ends(monkeypatch):
    asked, lines = [], []

    def take_turns(names, setting, turns):
        asked.append(names)
        if names == ['torch_eager']:
            raise RuntimeError('torch_eager ended with code -9')
        return {(names[0], 'train'): names[0]}, {'torch' if 'torch' in names[0] else 'jax': '1'}

    monkeypatch.setattr(measure, 'take_turns', take_turns)
    monkeypatch.setattr(measure, '_check_machine', lambda setting, torch: None)
    results = measure.measure_accelerator(SETTING, Turns(2, 1.0, lines.append), torch=True)
    assert asked == [['gpu_ceilings'], ['one_device'], *([form] for form in TORCH)]
    assert {name for name, _ in results.network} == {'gpu_ceilings', 'one_device', *TORCH} - {'torch_eager'}
    assert results.versions == {'jax': '1', 'torch': '1'}
    assert lines == ['batch 8, float32: LEFT OUT: torch_eager ended with code -9']


@pytest.mark.parametrize(
    ('device', 'platforms', 'preallocate'), [('cpu', 'cpu', None), ('gpu', 'cuda', 'false')], ids=['cpu', 'gpu']
)
def test_workers_of_a_gpu_are_not_sent_to_the_cpu_and_take_memory_as_they_need_it(
    monkeypatch, device, platforms, preallocate
):
    given = []

    class Started(FakeWorker):
        def __init__(self, name, command, setting, *, environment):
            super().__init__(name, [])
            given.append(environment)

        def wait_until_ready(self):
            pass

        def close(self):
            pass

    monkeypatch.setattr(measure, 'Worker', Started)
    measure.take_turns(['one_device'], dataclasses.replace(SETTING, device=device), Turns(2, 1.0, lambda line: None))
    assert given[0]['JAX_PLATFORMS'] == platforms
    assert given[0].get('XLA_PYTHON_CLIENT_PREALLOCATE') == preallocate
