"""Short runs of a narrow network in this process; what all of them compile, they share."""

import dataclasses
import typing
from types import MappingProxyType

import jax
import jax.numpy as jnp
from builders import run_with

from alexnet_jax.distributed.preemption import Preemption
from alexnet_jax.evaluation.evaluator import Evaluator
from alexnet_jax.logs.timing import StartupTimer
from alexnet_jax.run.train import train_run
from alexnet_jax.sharding.mesh import place_batch
from alexnet_jax.training import step
from alexnet_jax.training.build import Run
from alexnet_jax.training.schedule import fixed_drops

# The settings that the programs are made of, besides the network and the mesh.
IN_PROGRAM = (
    *('seed', 'batch_size', 'precision', 'clip_norm', 'momentum', 'weight_decay'),
    *('initial_learning_rate', 'schedule', 'drop_factor', 'frozen', 'rate_factors'),
)
_MADE = {}  # by what it is made of: compiled steps, first states, evaluators


def _once(make, *parts, function=None):
    key = repr(parts), function
    if key not in _MADE:
        _MADE[key] = make()
    return _MADE[key]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedRun(Run):
    """A run whose training step is the very same program as that of others with its settings: so are all bits.

    Attributes:
      spoilt: steps whose losses and gradients are numbers, and whose rate makes infinite parameters of them.
      change_state: (number of the step, state after it) -> the state that the run goes on with.
    """

    spoilt: tuple[int, ...] = ()
    change_state: typing.Any = None

    def create_state(self, mean_image, layers=MappingProxyType({})):
        create = super().create_state
        if layers:
            return create(mean_image, layers)
        own = (self.variant, self.mesh, self.config.seed, self.config.frozen, mean_image.sum())
        state = _once(lambda: create(mean_image), 'state', *own)
        return jax.tree.map(jnp.copy, state)  # a step uses up the state

    def make_train_step(self):
        return Update(self)

    def compile(self, state, batch):
        """Compiles the step for batches on the devices, once."""
        batch = batch if isinstance(batch.images, jax.Array) else place_batch(self.mesh, batch)
        make = super().make_train_step  # with the seed as a constant, as each run has its own program here
        loss = step.cross_entropy  # a test replaces it
        return _once(lambda: make().lower(state, batch).compile(), 'step', *self._parts(), function=loss)

    def spoil(self):
        """Returns the run that has such a rate in all of its steps."""
        return dataclasses.replace(self, schedule=fixed_drops(3e38, factor=1.0, at_steps=()), spoilt=('all',))

    def _parts(self):
        settings = [getattr(self.config, key) for key in IN_PROGRAM]
        steps = (self.drop_steps, self.warmup_steps)
        return self.variant, self.mesh, self.num_classes, steps, settings, self.spoilt == ('all',)


class Update:
    """The compiled training step of a `SharedRun`."""

    def __init__(self, run):
        self._run = run

    def lower(self, state, batch, seed):
        assert int(jax.device_get(seed)) == self._run.config.seed
        self._step = self._run.compile(state, batch)
        self._spoilt = self._run.spoil().compile(state, batch) if self._run.spoilt else None
        return self

    def compile(self):
        return self

    def __call__(self, state, batch, seed):
        if not self._run.spoilt and not self._run.change_state:
            return self._step(state, batch)
        with jax.transfer_guard('allow'):
            number = int(state.step) + 1  # of a frozen state below 1
            state, metrics = (self._spoilt if number in self._run.spoilt else self._step)(state, batch)
            return self._run.change_state(number, state) if self._run.change_state else state, metrics


def make_run(*, spoilt=(), change_state=None, **values):
    """A run of the tiny dataset on two devices; its rate is halved by the paper's rule, and by no layer's own."""
    plain = run_with(**{'variant': 'released', 'width': 0.03125, 'schedule': 'plateau', 'drop_factor': 0.5} | values)
    parts = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    # These rates would change at a share of the steps, which would then be a part of the program.
    return SharedRun(**parts | {'lr_multipliers': ()}, spoilt=spoilt, change_state=change_state)


def make_plain(run):
    """The same run, which compiles for itself."""
    return Run(**{field.name: getattr(run, field.name) for field in dataclasses.fields(Run)})


def train(
    tiny,
    workdir,
    *,
    alone=False,
    after_test=lambda protocol: None,
    change_result=lambda result: result,
    preemption=None,
    initial=None,
    **values,
):
    """Trains as `make_run(**values)` says; `after_test` is called after each test that ended.

    The tests of both protocols have the views of the centre alone. A run that is `alone` shares nothing and has all
    views.
    """
    run = make_run(**values)
    workdir.mkdir(exist_ok=True)

    def make_evaluator():
        return Evaluator(run.variant, run.mesh, tiny.records('validation'), num_classes=3, batch_size=8)

    evaluator = make_evaluator() if alone else _once(make_evaluator, 'evaluator', run.variant, run.mesh)

    def evaluate(params, mean_image, *, protocol, progress):
        views = protocol if alone else 'centre'
        result = evaluator(params, mean_image, protocol=views, progress=progress)
        after_test(protocol)
        return change_result(result)

    evaluate.examples = evaluator.examples
    return train_run(
        make_plain(run) if alone else run,
        dataset=tiny,
        evaluate=evaluate,
        workdir=workdir,
        startup=StartupTimer(),
        preemption=preemption or Preemption(print),
        initial=initial,
    )
