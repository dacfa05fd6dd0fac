"""Points that Optuna makes up, from those that were tried: every trial is a run like another, in a folder of its own.

The study is ROOT/optuna.db. Its objective is the centre top-1 error of the validation split; a run whose error at
some test (the third, say) is worse than the median of the others at that test is stopped.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import pathlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from alexnet_jax import FAILED, InputError
from alexnet_jax.sweeping.plan import Point, checked, require_key, shown, values_of
from alexnet_jax.sweeping.runner import Run
from alexnet_jax.training.recovery import FILE as BAD_NUMBERS

_UNPRUNED = 5  # trials before any is stopped early


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; drawn evenly, or evenly in their logarithms."""

    low: float
    high: float
    log: bool

    def __str__(self) -> str:
        return f'{"log:" * self.log}{self.low}..{self.high}'


Space = dict[str, Range | list[Any]]


def space_of(base: ml_collections.ConfigDict, texts: Mapping[str, str]) -> Space:
    """What --sweep.KEY=VALUES say of a search: LOW..HIGH, log:LOW..HIGH, or values to choose from.

    Raises:
      InputError: a key or value that the config does not take, or a range that is none.
    """
    space: Space = {}
    for key, text in texts.items():
        require_key(base, key)
        if key == 'seed':
            raise InputError('--sweep.seed: a search over seeds finds luck; sweep the best of its settings over them')
        low, dots, high = text.removeprefix('log:').partition('..')
        if not dots or base.get_type(key) not in (int, float):
            space[key] = values_of(base, key, text)
        else:
            log, ends = text.startswith('log:'), values_of(base, key, f'{low},{high}')
            if len(ends) != 2 or not ends[0] < ends[1] or (log and ends[0] <= 0):
                raise InputError(f'--sweep.{key}={text}: LOW..HIGH needs LOW below HIGH, and with log: above 0')
            space[key] = Range(ends[0], ends[1], log=log)
        among = space[key]
        for value in (among.low, among.high) if isinstance(among, Range) else among:
            checked(base, {key: value})
    if not space:
        raise InputError('nothing to search: give --sweep.KEY=LOW..HIGH, log:LOW..HIGH or values')
    return space


def described(space: Space) -> dict[str, str]:
    """A space as text, for sweep.json."""
    return {
        key: str(among) if isinstance(among, Range) else ','.join(map(shown, among)) for key, among in space.items()
    }


class Search:
    """A source of points (runner.Source)."""

    def __init__(
        self,
        root: pathlib.Path,
        base: ml_collections.ConfigDict,
        space: Space,
        *,
        trials: int,
        say: Callable[[str], None],
        started: Callable[[Point], None],
    ) -> None:
        """Opens ROOT/optuna.db, or makes it.

        Args:
          root: the sweep's folder.
          base: the config that is searched around.
          space: what is searched.
          trials: how many there are to be in all, those of earlier starts included.
          say: prints a line.
          started: called with each point before it is run.

        Raises:
          InputError: Optuna is not installed, or another process searches in this folder.
        """
        try:
            import optuna
        except ImportError as error:
            raise InputError('--search=optuna needs Optuna: pip install -r requirements-search.txt') from error
        self._held = (root / '.search').open('a')
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f'another process searches in {root}: wait for it, or stop it') from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._root, self._base, self._space = optuna, root, base, space
        self._limit, self._say, self._started = trials, say, started
        self._study = optuna.create_study(
            storage=f'sqlite:///{root.absolute() / "optuna.db"}',
            study_name='sweep',
            load_if_exists=True,
            direction='minimize',
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED),
        )
        before = self._study.get_trials(deepcopy=False)
        # The same seed at every start would draw the same first points again.
        self._study.sampler = optuna.samplers.TPESampler(seed=base.seed + len(before))
        self._unfinished = deque(trial for trial in before if trial.state == optuna.trial.TrialState.RUNNING)
        self.left = max(0, trials - len(before)) + len(self._unfinished)
        self._trials: dict[str, Any] = {}
        self._distributions = {key: self._distribution(among) for key, among in space.items()}

    def _distribution(self, among: Range | list[Any]) -> Any:
        distributions = self._optuna.distributions
        if not isinstance(among, Range):
            return distributions.CategoricalDistribution([shown(value) for value in among])
        kind = distributions.IntDistribution if isinstance(among.low, int) else distributions.FloatDistribution
        return kind(among.low, among.high, log=among.log)

    def next(self) -> Point | None:
        """An unfinished trial of an earlier start, or a new one; None when there are enough."""
        while True:
            if self._unfinished:
                trial = self._optuna.trial.Trial(self._study, self._unfinished.popleft()._trial_id)
            elif len(self._study.get_trials(deepcopy=False)) < self._limit:
                trial = self._study.ask(self._distributions)
            else:
                return None
            try:
                point = self._point(trial)
            except InputError as error:
                self._say(f'trial {trial.number} cannot be run: {error}')
                self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
                continue
            self._trials[point.name] = trial
            self._started(point)
            return point

    def _point(self, trial: Any) -> Point:
        if trial.params.keys() != self._space.keys():
            raise InputError('it was made when this search was killed')
        overrides = {}
        for key, value in trial.params.items():
            among = self._space[key]
            overrides[key] = value if isinstance(among, Range) else next(v for v in among if shown(v) == value)
        return checked(self._base, overrides, name=f'trial-{trial.number:04}')

    def watch(self, run: Run) -> bool:
        """Tells Optuna of new tests; whether the run is to be stopped."""
        if not self._tell_tests(run) or run.progress.step >= run.steps:
            return False
        return self._trials[run.point.name].should_prune()

    def _tell_tests(self, run: Run) -> bool:
        """Whether there were new ones. They are counted, not their steps: with other batches an epoch has others."""
        trial = self._trials[run.point.name]
        told = len(self._study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        errors = [run.progress.errors[step] for step in sorted(run.progress.errors)]
        for number in range(told, len(errors)):
            trial.report(errors[number], number + 1)
        return len(errors) > told

    def ended(self, run: Run) -> None:
        """Tells Optuna of a run's end; one that can go on stays open, for the next start."""
        states, number = self._optuna.trial.TrialState, self._trials[run.point.name].number
        self._tell_tests(run)
        if run.state == 'finished':
            result = json.loads((self._root / run.point.name / 'result.json').read_text())
            self._study.tell(number, result['centre']['top1_error'])
        elif run.state == 'pruned':
            self._study.tell(number, state=states.PRUNED)
        elif run.code == FAILED:
            # Optuna learns from what was pruned, not from what failed: a run that diverged is of the first kind.
            diverged = (self._root / run.point.name / BAD_NUMBERS).exists()
            self._study.tell(number, state=states.PRUNED if diverged else states.FAIL)
