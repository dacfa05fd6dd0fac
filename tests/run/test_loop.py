"""The loop, watched from inside: who waits for whom, what is compiled when, what is moved, what is traced."""

import dataclasses
import functools
import gzip
import json
import re
import shutil
import time
import types

import jax
import numpy as np
import pytest
from builders import run_with
from run.short_runs import SharedRun, make_run, train

from alexnet_jax.checkpoints.checkpointer import SaveError
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.distributed.preemption import Preemption
from alexnet_jax.errors import InputError, Interrupted
from alexnet_jax.logs import metrics_reader
from alexnet_jax.logs.logger import RunLogger
from alexnet_jax.logs.timing import Stopwatch
from alexnet_jax.run import batches, loop
from alexnet_jax.run.run_dir import claim_run_dir
from alexnet_jax.sharding.mesh import place_batch
from alexnet_jax.training import build
from alexnet_jax.training.step import Batch

COMPILED = '/jax/core/compile/backend_compile_duration'  # jax.monitoring, also where the cache has the program


@pytest.fixture(scope='module')
def watched(tiny, tmp_path_factory):
    """(workdir, events in their order) of 12 steps with tests and checkpoints after 6 and 12."""
    events = []

    class Update:
        """The training step, which tells when it is called."""

        def __init__(self, *arguments, **options):
            self._step = make_train_step(*arguments, **options)

        def lower(self, *arguments):
            self._step = self._step.lower(*arguments)
            return self

        def compile(self):
            self._step = self._step.compile()
            return self

        def __call__(self, state, batch, seed):
            events.append(('dispatch', 1 + sum(kind == 'dispatch' for kind, _ in events)))
            return self._step(state, batch, seed)

    def place_batch(mesh, batch, **size):
        events.append(('batch', 1 + sum(kind == 'batch' for kind, _ in events)))
        return place(mesh, batch, **size)

    def check(monitor, step, loss):
        events.append(('read', step))
        return check_loss(monitor, step, loss)

    def log_training(logger, step, *arguments, **options):
        events.append(('log', step))
        return write_log(logger, step, *arguments, **options)

    def compiled(event, seconds, **details):
        if event == COMPILED:
            events.append(('compile', details.get('fun_name')))

    make_train_step, place = build.make_train_step, batches.place_batch
    check_loss, write_log = metrics_reader.LossMonitor.check, RunLogger.log_training
    workdir = tmp_path_factory.mktemp('watched')
    jax.monitoring.register_event_duration_secs_listener(compiled)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, 'make_train_step', Update)
            patch.setattr(batches, 'place_batch', place_batch)
            patch.setattr(metrics_reader.LossMonitor, 'check', check)
            patch.setattr(RunLogger, 'log_training', log_training)
            train(
                tiny,
                workdir,
                alone=True,
                after_test=lambda protocol: events.append(('test', protocol)),
                steps=12,
                evaluate_every=6,
                checkpoint_every=6,
                log_every=1,
            )
    finally:
        jax.monitoring.unregister_event_duration_listener(compiled)
    return workdir, events


@pytest.mark.slow
def test_train_dispatches_steps_before_it_reads_or_logs_those_before(watched):
    """So a logger or a reader of data that is slow finds the devices with two more steps to do."""
    _, events = watched
    at = {event: place for place, event in enumerate(events)}
    assert [step for kind, step in events if kind == 'dispatch'] == list(range(1, 13))
    assert [step for kind, step in events if kind == 'log'] == list(range(1, 13))
    for step in range(1, 13):
        assert at['dispatch', step] < at['batch', step + 1] < at['read', step] < at['log', step]
    for step in (1, 2, 3, 4, 7, 8, 9, 10):  # the others are read before the tests after 6 and 12
        assert at['dispatch', step + 2] < at['read', step]


@pytest.mark.slow
def test_train_compiles_nothing_after_the_first_step_test_and_checkpoint(watched):
    _, events = watched
    kinds = [kind for kind, _ in events]
    steps, test, again = events.index(('dispatch', 1)), events.index(('log', 6)), events.index(('dispatch', 7))
    assert events[:steps].count(('compile', 'jit(train_step)')) == 1
    assert 'compile' not in kinds[steps:test]
    assert events[test:again].count(('compile', 'jit(add_view)')) == 1  # one program for both protocols
    assert 'compile' not in kinds[again:]
    assert [name for kind, name in events[again:] if kind == 'test'] == ['centre', 'ten_view']


def test_train_refuses_transfers_that_are_not_by_name(tiny, tmp_path, monkeypatch):
    """A batch that is left on the host would be sent by the step itself, which then waits for it: refused."""
    monkeypatch.setattr(batches, 'place_batch', lambda mesh, batch, batch_size: batch)
    with pytest.raises(jax.errors.JaxRuntimeError, match='Disallowed host-to-device transfer'):
        train(tiny, tmp_path / 'run', steps=2)
    assert not (tmp_path / 'run/result.json').exists()


@pytest.mark.slow
def test_train_logs_how_long_the_devices_waited_for_data(tiny, tmp_path, capsys, monkeypatch):
    def place_batch(mesh, batch, **size):
        time.sleep(0.3)  # a step takes a tenth of it
        return place(mesh, batch, **size)

    place = batches.place_batch
    monkeypatch.setattr(batches, 'place_batch', place_batch)
    result = train(tiny, tmp_path / 'run', steps=6, log_every=6)
    said = capsys.readouterr().err
    line = json.loads((tmp_path / 'run/metrics.jsonl').read_text().splitlines()[0])
    assert 0.5 < result['data_wait'] < 1
    assert 0.5 < line['data_wait'] < 1
    assert re.search(r'step 6/6 .* [5-9]\d% of the time waiting for data', said)
    assert re.search(r'trained 6 steps .*, [5-9]\d\.\d% of it waiting for data: ', said)


def test_due_saves_what_stays_for_good_between_the_other_checkpoints():
    built = run_with(steps=13, checkpoint_every=4, evaluate_every=6, keep_every_epochs=1)  # an epoch is five steps
    due = {step: built.get_due(step) for step in range(1, 14)}
    assert [step for step, both in due.items() if both['at_save']] == [4, 5, 8, 10, 12, 13]
    assert [step for step, both in due.items() if both['at_test']] == [6, 12, 13]


@pytest.mark.parametrize('ended', [True, False])
def test_next_counts_waiting_only_of_devices_with_nothing_to_do(ended):
    def slow():
        time.sleep(0.05)
        yield 'a batch'

    this = types.SimpleNamespace(stopwatch=Stopwatch())
    metrics = {'loss': types.SimpleNamespace(is_ready=lambda: ended)}
    assert loop.Trainer._next(this, slow(), metrics) == 'a batch'
    assert (0.05 <= this.stopwatch.waited < 1) if ended else this.stopwatch.waited == 0


@pytest.mark.slow
def test_profile_holds_whole_steps_by_number_and_the_exchanges_by_name(tiny, tmp_path, capsys):
    train(tiny, tmp_path / 'run', steps=5, profile=2)
    said = capsys.readouterr().err
    assert f'traced 2 steps into {tmp_path}/run/profile: open it with `tensorboard --logdir ' in said
    (folder,) = (tmp_path / 'run/profile/plugins/profile').iterdir()
    (space,), (timeline,) = folder.glob('*.xplane.pb'), folder.glob('*.trace.json.gz')
    for name in (b'conv1', b'exchange_conv3', b'exchange_fc6', b'exchange_fc7', b'exchange_fc8'):
        assert name in space.read_bytes()
    events = json.loads(gzip.decompress(timeline.read_bytes()))['traceEvents']
    assert [int(event['args']['step_num']) for event in events if event.get('name') == 'train'] == [3, 4]
    # The gradients of the exchanges before conv3, fc6 and fc7, on two devices.
    scattered = [event for event in events if str(event.get('args', {}).get('hlo_op')).startswith('reduce_scatter')]
    assert len(scattered) == 3 * 2 * 2
    assert {event['args']['hlo_module'] for event in scattered} == {'jit_train_step'}


@pytest.mark.slow
def test_train_run_that_goes_on_for_longer_has_no_result_until_it_ends(watched, tiny, monkeypatch):
    """Else the report and `compare` would take the shorter one's for it. Nor is a state made that is thrown away."""

    def killed(protocol):
        raise KeyboardInterrupt

    workdir, _ = watched
    monkeypatch.setattr(SharedRun, 'create_state', None)
    assert json.loads((workdir / 'result.json').read_text())['steps'] == 12
    with pytest.raises(KeyboardInterrupt):
        train(tiny, workdir, steps=13, after_test=killed)
    assert not (workdir / 'result.json').exists()
    assert train(tiny, workdir, steps=13)['steps'] == 13
    assert json.loads((workdir / 'result.json').read_text())['steps'] == 13


@pytest.mark.slow
def test_train_run_goes_on_with_the_same_records_in_the_other_encoding(tiny, tiny_raw, tmp_path, capsys):
    """From JPEGs to the raw records rewritten from them, and back, within an epoch; bit for bit as without a change."""

    def go_on(dataset, workdir, **options):
        values = {'dataset': dataset.name, 'steps': 7, 'evaluate_every': 2}
        claim_run_dir(workdir, make_run(**values), dataset)
        return train(dataset, workdir, **values, **options)['params_sha256']

    straight = go_on(tiny, tmp_path / 'straight')
    for dataset in (tiny, tiny_raw):
        preemption = Preemption(print)
        told = functools.partial(setattr, preemption, 'name')
        with pytest.raises(Interrupted):
            go_on(
                dataset, tmp_path / 'changing', preemption=preemption, after_test=lambda _, told=told: told('SIGTERM')
            )
    assert go_on(tiny, tmp_path / 'changing') == straight
    assert re.findall(r'resuming from step (\d)', capsys.readouterr().err) == ['3', '5']


@pytest.mark.slow
def test_train_run_has_no_result_where_the_last_update_ruins_the_network(tiny, tmp_path):
    """The loss of a step is that before its update: of the last one, only the test can tell."""
    message = r'the validation loss is (nan|inf) at step 1: .*, the state before it is checkpoint 0,'
    with pytest.raises(InputError, match=message):
        train(tiny, tmp_path, learning_rate=1e30, steps=1)
    assert not (tmp_path / 'result.json').exists()
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['0']


@pytest.mark.slow
@pytest.mark.parametrize('told', ['at once', 'in the last test'])
def test_train_run_told_to_stop_that_cannot_save_never_says_that_it_did(tiny, tmp_path, monkeypatch, told):
    """Although it may go on without: who stops it wants to know what is safe."""
    usage, preemption = shutil.disk_usage(tmp_path), Preemption(print)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=10_000))
    if told == 'at once':
        preemption.name = 'SIGTERM'

    def after_test(protocol):
        preemption.name = 'SIGTERM'

    with pytest.raises(SaveError, match='checkpoint not written: 0 MB are free'):
        train(tiny, tmp_path, after_test=after_test, preemption=preemption, on_failed_save='continue', steps=1)


def test_train_step_changes_no_frozen_state(tiny):
    plain = make_run()
    state = plain.create_state(np.asarray(centre_crop(tiny.mean_image)))
    host, mesh = batches.make_batches(plain, tiny)[0], plain.mesh
    before = jax.device_get(state)
    bad = place_batch(mesh, Batch(host.images, host.labels, np.full_like(host.lighting, np.inf), host.places))
    good = place_batch(mesh, batches.make_batch(host))
    step = plain.compile(state, good)
    for batch in (bad, good, good):
        state, _ = step(state, batch)
    assert int(state.step) == -1  # frozen after no update
    after = jax.device_get(dataclasses.replace(state, step=before.step))
    jax.tree.map(np.testing.assert_array_equal, after, before)
