"""The configuration of a run: every number that affects a result, with its default, its constraint and its meaning.

A config file is Python code, and --config=FILE executes it: give it none that you would not run yourself. The values of
--config.KEY=VALUE are only ever read as values. `make_config` gives the mutable form that files and flags override,
`validation.validate_config` the frozen one that everything else takes.
"""

import dataclasses
import math
from fractions import Fraction
from typing import Any

import ml_collections
from ml_collections import config_dict

from alexnet_jax.errors import InputError
from alexnet_jax.model.ablations import ABLATIONS, ACTIVATIONS
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.training.config_rules import (
    DATASET_NAME,
    FLAG,
    FOLDER,
    FRACTION,
    LAYERS,
    MAX_STEPS,
    POSITIVE,
    Rule,
    are_factors,
    are_names,
    is_epochs,
    is_real,
    is_sequence,
    is_whole,
    make_choice_rule,
    make_int_rule,
    make_key,
)

DEMO = 'demo'  # the embedded dataset's name
ONE_WEIRD_TRICK = 'one_weird_trick'
# What devices share, by name, and the smallest mesh of each: (data, tower), of one weird trick (data, model).
MESHES = {'two_device': (1, 2), 'data_parallel': (2, 1), 'hybrid': (2, 2), ONE_WEIRD_TRICK: (1, 2)}
TRACKING = ('wandb', 'mlflow', 'trackio')  # the packages of logs/trackers.py


# NaN fails every comparison, and so every rule.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A validated configuration; its defaults are the paper's recipe (section 5)."""

    # The network
    variant: str = make_key(
        'paper',
        make_choice_rule(*NETWORKS),
        "the network: paper, the text, released, CHM's layers-145, or another: model/zoo.py",
    )
    # Below 0.001 every layer has two units, the least, and only their initial weights go on growing.
    width: float = make_key(
        1.0,
        Rule('at least 0.001 and at most 4', lambda value: is_real(value) and 0.001 <= value <= 4),
        "channels and units, as a fraction of the paper's",
    )
    without: tuple[str, ...] = make_key(
        (),
        Rule(f'names, each once, out of {", ".join(ABLATIONS)}', lambda value: are_names(value, ABLATIONS)),
        'parts to take away, --config.without=norm,overlap: model/ablations.py',
    )
    activation: str = make_key(
        '',
        make_choice_rule(*ACTIVATIONS, '', wants=f"{', '.join(map(repr, ACTIVATIONS))} or ''"),
        "the units: relu, tanh or sigmoid, with their initial weights; '': the variant's own",
    )
    # The data
    dataset: str = make_key(DEMO, DATASET_NAME, 'the prepared dataset')
    data_dir: str = make_key('data', FOLDER, 'where prepared datasets are: DATA_DIR/DATASET/VERSION')
    cache: str = make_key(
        'none',
        make_choice_rule('none', 'memory', wants="'none' or 'memory'"),
        'where decoded records are kept, so that each is decoded once: memory, for a dataset that fits',
    )
    lighting: bool = make_key(True, FLAG, 'RGB noise along the principal components, strength by variant')
    crops: int | None = make_key(
        None, make_int_rule(1), "offsets to crop at, the centre and others; None: the variant's", optional=int
    )
    images_per_crop: int | None = make_key(
        None,
        make_int_rule(1),
        'images that share crop and flip; None: 1 of paper, 32 of released',
        optional=int,
    )
    mean_at: str | None = make_key(
        None,
        make_choice_rule('centre', 'crop', wants="'centre' or 'crop'"),
        "part of the mean image that a crop has subtracted: the 'centre', or its own; None: the variant's",
        optional=str,
    )
    # What it starts from
    init_from: str = make_key(
        '',
        Rule(
            "a run folder, a file of weights, 'imagenet_trunk' or ''",
            lambda value: isinstance(value, str) and (value == '' or value.isprintable()),
        ),
        "whose weights to start from: a run folder, what --weights takes, or imagenet_trunk; '': from noise",
    )
    init_step: int | None = make_key(
        None,
        make_int_rule(0),
        'of a run folder, which checkpoint; None: the one with the lowest error',
        optional=int,
    )
    init_mean: str = make_key(
        'source',
        make_choice_rule('source', 'dataset', wants="'source' or 'dataset'"),
        "the mean image that is subtracted: that of these weights, or the dataset's",
    )
    classes: str = make_key(
        'new',
        make_choice_rule('new', 'keep', wants="'new' or 'keep'"),
        'the classifier: made anew unless the classes are the same, or kept, each class found there by its name',
    )
    # The run
    seed: int = make_key(
        0,
        Rule('a whole number from 0 to 2**31 - 1', lambda value: is_whole(value, 0)),
        'of weights, data and dropout',
    )
    batch_size: int = make_key(128, make_int_rule(1), 'images of a step, of all devices together (section 5)')
    accumulate: int = make_key(
        1, make_int_rule(1), 'parts of its images that a device goes through in turn, for the memory of one; 1: at once'
    )
    epochs: float = make_key(90.0, Rule('above 0 and below 2**31', is_epochs), '"roughly 90 cycles" (section 5)')
    steps: int | None = make_key(None, make_int_rule(1), 'updates; where set, overrides epochs', optional=int)
    parallelism: str = make_key('two_device', make_choice_rule(*MESHES), 'what devices share: docs/parallelism.md')
    mesh: tuple[int, int] = make_key(
        None,
        Rule(
            'two whole numbers, data,tower, tower 1 or 2 (--config.mesh=1,2)',
            lambda value: is_sequence(value) and len(value) == 2 and all(map(is_whole, value)),
        ),
        '(data, tower) devices; None: the smallest mesh of parallelism',
        optional=tuple,
    )
    precision: str = make_key(
        'float32',
        make_choice_rule('float32', 'bfloat16', wants="'float32' or 'bfloat16'"),
        'of activations and products; weights, norms and softmax stay float32',
    )
    deterministic: bool = make_key(
        False, FLAG, 'the same bits from every run: GPU kernels chosen for it, CPU thread pools of one size'
    )
    # The update (section 5)
    learning_rate: float = make_key(0.01, POSITIVE, 'before any drop')
    rate_batch_size: int | None = make_key(
        None,
        make_int_rule(1),
        'batch size that learning_rate is for, and with which it grows; None: it does not, but with one weird trick',
        optional=int,
    )
    momentum: float = make_key(0.9, FRACTION, 'of the update')
    weight_decay: float = make_key(5e-4, FRACTION, 'of kernels, times the learning rate')
    schedule: str = make_key(
        'plateau',
        make_choice_rule('plateau', 'steps', 'polynomial', wants="'plateau', 'steps' or 'polynomial'"),
        "the paper's rule, drops at fixed epochs, or down to 0 with the steps that are left",
    )
    drop_factor: float = make_key(
        0.1,
        Rule('above 0 and below 1 (in float32)', lambda value: POSITIVE.holds(value) and FRACTION.holds(value)),
        'what a drop multiplies the learning rate by',
    )
    drop_epochs: tuple[float, ...] = make_key(
        (24.0, 50.0, 78.0),
        Rule(
            'increasing numbers, each above 0 and below 2**31',
            lambda value: is_sequence(value) and all(map(is_epochs, value)) and list(value) == sorted(set(value)),
        ),
        'of schedule steps (CHM layers/layer-params-145.cfg: "epoch 25", 51, 79)',
    )
    patience: int = make_key(5, make_int_rule(1), 'of schedule plateau: tests without a better error before a drop')
    max_drops: int = make_key(3, make_int_rule(0), 'of schedule plateau: "reduced three times prior to termination"')
    schedule_power: float = make_key(2.0, POSITIVE, 'of schedule polynomial: of the part of the steps that is left')
    trust_coefficient: float | None = make_key(
        None,
        POSITIVE,
        "LARS: each array's rate times this, times its norm beside its gradient's; None: not",
        optional=float,
    )
    clip_norm: float | None = make_key(
        None, POSITIVE, "gradients' norm is scaled down to this; None: never", optional=float
    )
    warmup_epochs: float = make_key(
        0.0,
        Rule('at least 0 and below 2**31', lambda value: is_real(value) and (value == 0 or is_epochs(value))),
        'in which the rate grows, step by step, to what the schedule says; 0: none',
    )
    frozen: tuple[str, ...] = make_key(
        (),
        Rule(f'layers, each once, out of {", ".join(LAYERS)}', lambda value: are_names(value, LAYERS)),
        'layers that stay as they are, --config.frozen=conv1,conv2: no gradient, no momentum',
    )
    rate_factors: tuple[tuple[str, float], ...] = make_key(
        (),
        Rule(f'above 0 and finite (in float32), for layers out of {", ".join(LAYERS)}', are_factors),
        'multiples of the rate of a layer, weights and biases: --config.rate_factors.fc8=10.0',
    )
    # Watching and keeping
    evaluate_every: int = make_key(0, make_int_rule(0), 'steps between validations; 0: once an epoch')
    test_training_images: int = make_key(
        0, make_int_rule(0), 'training images, spread over the classes, that each validation is repeated on; 0: none'
    )
    checkpoint_every: int = make_key(0, make_int_rule(0), 'steps between checkpoints; 0: once an epoch')
    keep_checkpoints: int = make_key(3, make_int_rule(1), 'the latest ones; the best is kept besides')
    keep_every_epochs: int = make_key(
        0,
        make_int_rule(0),
        'epochs between checkpoints that stay for good, besides the latest and the best; 0: none',
    )
    log_every: int = make_key(20, make_int_rule(1), 'steps between lines of the log')
    probe_every: int = make_key(
        0, make_int_rule(0), "steps between looks into a step: each layer's gradient, update and lost units; 0: none"
    )
    on_non_finite: str = make_key(
        'stop',
        make_choice_rule('stop', 'skip', 'roll_back', wants="'stop', 'skip' or 'roll_back'"),
        'after a non-finite loss: stop, skip the batch, or roll back and go another way',
    )
    max_non_finite: int = make_key(
        3, make_int_rule(0), 'how often a loss may be non-finite before the run stops after all'
    )
    on_failed_save: str = make_key(
        'stop',
        make_choice_rule('stop', 'continue', wants="'stop' or 'continue'"),
        'after a save that the disk does not take: stop, or continue without it, with a warning',
    )
    tracking: str = make_key(
        '',
        make_choice_rule(*TRACKING, '', wants=f"{', '.join(map(repr, TRACKING))} or ''"),
        f'a tracker besides TensorBoard: {", ".join(TRACKING)}',
    )
    profile: int = make_key(0, make_int_rule(0), 'steps to trace into WORKDIR/profile, once warm; 0: none')

    @property
    def initial_learning_rate(self) -> float:
        """The learning rate before any drop, grown with the batch where `rate_batch_size` asks for it."""
        return self.learning_rate * (self.batch_size / (self.rate_batch_size or self.batch_size))

    def get_total_steps(self, examples: int) -> int:
        """Counts the updates of the whole run: `steps`, or `epochs` passes over `examples` images, rounded up.

        Raises:
          InputError: there are more than can be counted.
        """
        steps = self.steps or self.count_updates(self.epochs, examples)
        if steps > MAX_STEPS:
            raise InputError(
                f'config.epochs {self.epochs} are {steps:,} updates with this dataset, of which {MAX_STEPS:,} can be '
                f'counted: use fewer'
            )
        return steps

    def count_updates(self, epochs: float, examples: int) -> int:
        """Counts the updates of so many epochs, rounded up: of 1.1 as it is written, not of its binary fraction."""
        return math.ceil(Fraction(repr(float(epochs))) * examples / self.batch_size)

    def to_json(self) -> dict[str, Any]:
        """Returns {key: value} as JSON has it, for config.json."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return values | {'rate_factors': dict(self.rate_factors)}


KEYS = {field.name: field for field in dataclasses.fields(Config)}
_TABLES = {'rate_factors': dict.fromkeys(LAYERS, 1.0)}  # a config has all entries, so that a flag can set each
# Minutes instead of days. The paper's initial weights would spend them near ln(10), as on ImageNet in the first epochs;
# the released ones, with stronger deep layers, leave it after about 100 steps. 32 images that share a crop would be all
# of a step; of the original's 128 they were a quarter.
_DEMO_RECIPE = {'variant': 'released', 'width': 0.25, 'batch_size': 32, 'learning_rate': 0.003, 'epochs': 4.0} | {
    'schedule': 'steps',
    'drop_epochs': (3.0,),
    'images_per_crop': 1,
}


def make_config(
    dataset: str | None = None, *, parallelism: str = 'two_device', mesh: tuple[int, int] | None = None
) -> ml_collections.ConfigDict:
    """Makes the paper's recipe for `dataset`, or for the embedded one (None) a small network that takes minutes.

    `parallelism` is one of MESHES, `mesh` (data, tower) device counts; None: the smallest of `parallelism`.
    """
    config = ml_collections.ConfigDict()
    for key, field in KEYS.items():
        optional = field.metadata['optional']
        config[key] = config_dict.placeholder(optional) if optional else _TABLES.get(key, field.default)
    config.update(dataset=dataset or DEMO, parallelism=parallelism, mesh=mesh)
    if config.dataset == DEMO:
        config.update(_DEMO_RECIPE)
    return config
