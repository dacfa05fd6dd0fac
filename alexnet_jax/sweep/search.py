"""A search: Optuna proposes points from the results of earlier ones; every trial is a run in a folder of its own.

The study is ROOT/optuna.db. Its objective is the centre top-1 error of the validation split; a run whose error at
some test (the third, say) is worse than the median of the others at that test is stopped.
"""

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import Any

import ml_collections

from alexnet_jax.console import info
from alexnet_jax.errors import FAILED, InputError
from alexnet_jax.files import try_lock
from alexnet_jax.sweep.plan import Point, check_key, format_value, make_point, parse_values
from alexnet_jax.sweep.record import SweepRecord
from alexnet_jax.sweep.results import read_result
from alexnet_jax.sweep.runner import PointSource, SweepRun

_STARTUP_TRIALS = 5  # before any is pruned


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; sampled evenly, or evenly in their logarithms."""

    low: float
    high: float
    log: bool

    def __str__(self) -> str:
        return f'{"log:" * self.log}{self.low}..{self.high}'


Space = dict[str, Range | list[Any]]


def parse_space(base: ml_collections.ConfigDict, texts: Mapping[str, str]) -> Space:
    """Parses a search's --sweep.KEY=TEXT: LOW..HIGH, log:LOW..HIGH, or values to choose from.

    Raises:
      InputError: the config does not take a key or value, or a range is empty.
    """
    space: Space = {}
    for key, text in texts.items():
        check_key(base, key)
        if key == 'seed':
            raise InputError('--sweep.seed: a search over seeds finds luck; sweep the best of its settings over them')
        low, dots, high = text.removeprefix('log:').partition('..')
        if dots and base.get_type(key) in (int, float):
            log, values = text.startswith('log:'), parse_values(base, key, f'{low},{high}')
            if len(values) != 2 or not values[0] < values[1] or (log and values[0] <= 0):
                raise InputError(f'--sweep.{key}={text}: LOW..HIGH needs LOW below HIGH, and with log: above 0')
            space[key] = Range(values[0], values[1], log=log)
        else:
            space[key] = values = parse_values(base, key, text)
        for value in values:
            make_point(base, {key: value})
    if not space:
        raise InputError('nothing to search: give --sweep.KEY=LOW..HIGH, log:LOW..HIGH or values')
    return space


def format_space(space: Space) -> dict[str, str]:
    """Formats a space for sweep.json."""
    return {
        key: str(domain) if isinstance(domain, Range) else ','.join(map(format_value, domain))
        for key, domain in space.items()
    }


class OptunaSearch(PointSource):
    """Gives the points of an Optuna study."""

    def __init__(self, record: SweepRecord, base: ml_collections.ConfigDict, space: Space, *, trials: int) -> None:
        """Opens ROOT/optuna.db, or makes it.

        Each point is added to `record` before it is run. `trials` counts those of earlier starts too.

        Raises:
          InputError: Optuna is not installed, or another process searches in this folder.
        """
        try:
            import optuna
        except ImportError as error:
            raise InputError("--search=optuna needs Optuna: pip install 'alexnet-jax[sweep]'") from error
        # One process at a time, so SQLite needs no locks between hosts. Optuna's journal file is no replacement: a line
        # that a full disk cuts off makes every later start fail (optuna 5.0.0), where SQLite rolls back.
        self._lock = try_lock(record.root / '.search')
        if self._lock is None:
            raise InputError(f'another process searches in {record.root}: wait for it, or stop it')
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._record, self._base, self._space, self._limit = optuna, record, base, space, trials
        self._study = optuna.create_study(
            storage=f'sqlite:///{record.root.absolute() / "optuna.db"}',
            study_name='sweep',
            load_if_exists=True,
            direction='minimize',
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS),
        )
        known = self._study.get_trials(deepcopy=False)
        # The same seed at every start would sample the same first points again.
        self._study.sampler = optuna.samplers.TPESampler(seed=base.seed + len(known))
        self._unfinished = deque(trial for trial in known if trial.state == optuna.trial.TrialState.RUNNING)
        self.left = max(0, trials - len(known)) + len(self._unfinished)  # for this start
        self._trials: dict[str, Any] = {}
        self._distributions = {key: self._make_distribution(domain) for key, domain in space.items()}

    def _make_distribution(self, domain: Range | list[Any]) -> Any:
        distributions = self._optuna.distributions
        if not isinstance(domain, Range):
            return distributions.CategoricalDistribution([format_value(value) for value in domain])
        kind = distributions.IntDistribution if isinstance(domain.low, int) else distributions.FloatDistribution
        return kind(domain.low, domain.high, log=domain.log)

    def next_point(self) -> Point | None:
        """Returns an unfinished trial of an earlier start, or a new one; None where there are enough."""
        while True:
            if self._unfinished:
                trial = self._optuna.trial.Trial(self._study, self._unfinished.popleft()._trial_id)
            elif len(self._study.get_trials(deepcopy=False)) < self._limit:
                trial = self._study.ask(self._distributions)
            else:
                return None
            try:
                point = self._make_point(trial)
            except InputError as error:
                info(f'trial {trial.number} cannot be run: {error}')
                self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
                continue
            self._trials[point.name] = trial
            self._record.add(point)
            return point

    def _make_point(self, trial: Any) -> Point:
        if trial.params.keys() != self._space.keys():
            raise InputError('it was made when this search was killed')
        overrides = {}
        for key, value in trial.params.items():
            domain = self._space[key]
            overrides[key] = value if isinstance(domain, Range) else next(v for v in domain if format_value(v) == value)
        return make_point(self._base, overrides, name=f'trial-{trial.number:04}')

    def should_prune(self, run: SweepRun) -> bool:
        """Reports new tests of a run to Optuna; returns whether the run is to be stopped."""
        if not self._report_tests(run) or run.progress.step >= run.steps:
            return False
        return self._trials[run.point.name].should_prune()

    def _report_tests(self, run: SweepRun) -> bool:
        """Returns whether there were new tests. They are numbered from 1: their steps depend on the batch size."""
        trial = self._trials[run.point.name]
        reported = len(self._study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        errors = [run.progress.errors[step] for step in sorted(run.progress.errors)]
        for number in range(reported, len(errors)):
            trial.report(errors[number], number + 1)
        return len(errors) > reported

    def record_end(self, run: SweepRun) -> None:
        """Reports a run's end to Optuna; the trial of a run that can be resumed stays open for the next start."""
        states, number = self._optuna.trial.TrialState, self._trials[run.point.name].number
        folder = self._record.root / run.point.name
        self._report_tests(run)
        if run.state == 'finished' and (result := read_result(folder)):
            self._study.tell(number, result['centre']['top1_error'])
        elif run.state == 'pruned':
            self._study.tell(number, state=states.PRUNED)
        elif run.code == FAILED:
            from alexnet_jax.run.recovery import FILE  # here, because it imports JAX

            # Optuna learns from pruned trials, not from failed ones: a run that diverged counts as pruned.
            non_finite = (folder / FILE).exists()
            self._study.tell(number, state=states.PRUNED if non_finite else states.FAIL)
