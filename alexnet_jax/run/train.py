"""Wires a training run: processes, mesh, dataset, run folder, and all that the loop needs."""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
from typing import Any

import jax

import alexnet_jax
from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.checkpoints.manifest import list_steps
from alexnet_jax.console import format_duration, info
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.distributed import hosts
from alexnet_jax.distributed.exit import ExitHandler
from alexnet_jax.distributed.hosts import ProcessGroup, check_same_on_hosts, sync_hosts
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.distributed.preemption import Preemption
from alexnet_jax.errors import InputError, Interrupted
from alexnet_jax.evaluation.evaluator import Evaluator
from alexnet_jax.files import hash_json, write_json
from alexnet_jax.logs.logger import RunLogger
from alexnet_jax.logs.timing import StartupTimer
from alexnet_jax.logs.tracking import Tracking, check_tracker
from alexnet_jax.run.batches import iter_batches, make_batches
from alexnet_jax.run.init_from import InitialWeights, create_state, load_initial_weights, restore_or_init
from alexnet_jax.run.kept import Kept
from alexnet_jax.run.loop import Trainer
from alexnet_jax.run.recovery import History, Recovery
from alexnet_jax.run.run_dir import check_run_dir, claim_run_dir, get_versions, hold_run_dir
from alexnet_jax.run.testing import Tester, TestStoppedError, choose_training_images
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.training.build import Run, build_run, describe_schedule, make_config_mesh
from alexnet_jax.training.config import Config


def train(
    config: Config,
    *,
    workdir: pathlib.Path,
    group: ProcessGroup,
    heartbeat: int,
    join_timeout: float,
    stuck_after: float,
    exit_handler: ExitHandler,
    startup: StartupTimer,
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Trains as `config` says, together with the other processes of `group`; returns what `train_run` does.

    `kept` is of the runs that this process made before; None: it makes only this one.

    Raises:
      InputError: what the user gave cannot be used.
      Interrupted: the run was told to stop, and saved.
    """
    startup.lap('imports')
    prepare_backend(config.mesh, processes=group.count, deterministic=config.deterministic)
    with Preemption(info, processes=group.count) as preemption, contextlib.ExitStack() as stack:
        group = exit_handler.connect(group, heartbeat=heartbeat, timeout=join_timeout, stuck_after=stuck_after)
        preemption.start_sync()
        if group.index == 0 and config.tracking:
            check_tracker(config.tracking)
        mesh = make_config_mesh(config)
        if group.count > 1 and (text := hosts.format_hosts(mesh, group, heartbeat=heartbeat)) and group.index == 0:
            info(text)
        startup.lap('devices')
        kept = kept or Kept()
        dataset = kept.open_dataset(config, group)
        run = build_run(config, num_classes=len(dataset.classes), examples=dataset.examples('train'), mesh=mesh)
        chosen = choose_training_images(config, dataset)
        if group.index == 0:
            check_run_dir(workdir, run, dataset)  # before the lock: what is another's is left as it is
        initial = None if list_steps(workdir) else load_initial_weights(run, dataset)  # before anything is written
        if group.index == 0:
            stack.enter_context(hold_run_dir(workdir))
            claim_run_dir(workdir, run, dataset, initial=None if initial is None else initial.report)
            if initial is not None:
                info(initial.format_report())
        _check_same_run(config, dataset, workdir, group)
        train_step, evaluate = kept.make_programs(run, dataset)
        startup.lap('dataset')
        PROGRESS.enter('last checkpoint')
        result = train_run(
            run,
            dataset=dataset,
            evaluate=evaluate,
            evaluate_training=evaluate.with_records(dataset.records('train'), chosen=chosen) if chosen else None,
            workdir=workdir,
            startup=startup,
            preemption=preemption,
            initial=initial,
            train_step=train_step,
        )
    PROGRESS.enter('end')
    sync_hosts('end')
    return result


def train_run(
    run: Run,
    *,
    dataset: Dataset,
    evaluate: Evaluator,
    workdir: pathlib.Path,
    startup: StartupTimer,
    preemption: Preemption,
    evaluate_training: Evaluator | None = None,
    initial: InitialWeights | None = None,
    train_step: Any = None,
) -> dict[str, Any]:
    """Trains to the end, from the newest whole checkpoint in `workdir` where there is one, else from `initial`.

    `train_step` is the jitted step of a run that differs in its seed at most; None: that of this one.

    Returns:
      What is written to WORKDIR/result.json: both protocols, 'steps', 'images_per_second' (training only; None if
      nothing was left to train), 'data_wait' (the share of that time in which devices may have waited for a batch) and
      'params_sha256'.

    Raises:
      InputError: no checkpoint can be used, one could not be written, or a loss is not finite.
      Interrupted: `preemption` was told to stop; everything is saved.
    """
    config, silent = run.config, jax.process_index() > 0
    with Checkpointer(
        workdir,
        keep=config.keep_checkpoints,
        is_permanent=run.is_permanent,
        on_failed_save=config.on_failed_save,
        rate_factors=run.rate_factors,
    ) as checkpointer:
        restore = functools.partial(restore_or_init, run, lambda: create_state(run, dataset, initial), checkpointer)
        state, data_order, tested = restore()
        start = int(state.step)
        if start and not silent:
            info(f'resuming from step {start} of {run.steps}')
        if start < run.steps and not silent:
            info(describe_schedule(run))
            (workdir / 'result.json').unlink(missing_ok=True)  # of a run that was shorter: not of what is to come
        startup.lap('state')
        with (
            Tracking(config, workdir, start=start, silent=silent) as tracking,
            RunLogger(run, workdir, start=start, silent=silent, track=tracking.log) as logger,
        ):
            startup.lap('log')
            preemption.info = tracking.info = checkpointer.info = logger.info
            history = History(data_order=data_order, since=start)

            shared: dict[str, Any] = {
                'run': run,
                'workdir': workdir,
                'checkpointer': checkpointer,
                'logger': logger,
                'preemption': preemption,
                'history': history,
                'batches': lambda step: iter_batches(run, dataset, start=step, data_order=history.data_order),
            }
            recovery = Recovery(
                **shared,
                records=lambda step: make_batches(run, dataset, data_order=history.data_order).records(step),
                restore=lambda: restore()[0],
            )
            tester = Tester(
                run=run,
                evaluate=evaluate,
                evaluate_training=evaluate_training,
                logger=logger,
                preemption=preemption,
            )
            trainer = Trainer(
                **shared,
                state=state,
                tester=tester,
                recovery=recovery,
                startup=startup,
                train_step=train_step or run.make_train_step(),
            )
            centre = trainer.train(tested=tested) if start < run.steps else None
            PROGRESS.enter('last checkpoint')
            checkpointer.wait()
            stopwatch = trainer.stopwatch
            try:
                result = tester.make_result(trainer.state, centre, stopwatch)
            except TestStoppedError:
                checkpointer.save_now(trainer.state, data_order=history.data_order)
                raise Interrupted('all steps are made and saved, testing them is left') from None
            logger.info(
                f'trained {stopwatch.images // config.batch_size} steps in {format_duration(stopwatch.seconds)} (tests '
                f'and saves apart), {stopwatch.get_data_wait():.1%} of it waiting for data: {workdir / "result.json"}'
            )
            tracking.log_result(result)
    if not silent:
        write_json(workdir / 'result.json', result)
    return result


def _check_same_run(config: Config, dataset: Dataset, workdir: pathlib.Path, group: ProcessGroup) -> None:
    """Checks that all processes run the same code, with the same settings and data, into the same folder."""
    if group.count == 1:
        return
    settings = {name: repr(value) for name, value in dataclasses.asdict(config).items() if name != 'data_dir'}
    code = {'code': _hash_code(), 'packages': hash_json(get_versions())}
    check_same_on_hosts(code, remedy='install the same checkout and requirements.txt on all hosts')
    check_same_on_hosts(settings, remedy='start all with the same options')
    found = {'dataset': dataset.fingerprint}
    check_same_on_hosts(found, remedy='prepare it once and copy it, or share --config.data_dir')
    seen = (workdir / 'run.json').read_text() if (workdir / 'run.json').exists() else 'nothing'
    hashes = hosts.allgather_str('workdir', hash_json(seen))
    for index, found_hash in enumerate(hashes):
        if found_hash != hashes[0]:
            raise InputError(
                f'process {index} does not see the run folder of process 0 in {workdir}: --workdir must be on storage '
                f'that all hosts share'
            )


def _hash_code() -> str:
    """Computes the sha256 of every source file of the package."""
    root = pathlib.Path(alexnet_jax.__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob('*.py')):
        found.update(path.relative_to(root).as_posix().encode() + b'\0' + path.read_bytes())
    return found.hexdigest()
