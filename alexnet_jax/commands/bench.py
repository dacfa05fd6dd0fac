"""Measures the speed of this project on this machine's CPU, in processes that take turns. Close other programs.

alexnet bench step                    training and inference, each layer, beside the machine's ceilings
alexnet bench step --against=torch    and beside the same network in PyTorch (pip install 'alexnet-jax[torch]')
alexnet bench input                   the input pipeline, each stage, beside what the training step takes
alexnet bench input --against=tf      and beside tf.data on the same files (pip install 'alexnet-jax[tensorflow]')
alexnet bench input --against=torch   and beside PyTorch's DataLoader (pip install 'alexnet-jax[torch]')

On 2 cores `step` takes four minutes, a quarter of an hour against PyTorch; `input` two and four.
"""

import json
from typing import Any

from absl import flags, logging

from alexnet_jax.commands.command_line import parse_arguments
from alexnet_jax.errors import InputError

_AGAINST = flags.DEFINE_enum(
    'against', None, ['torch', 'tf'], 'What to compare with: PyTorch, or tf.data (input only).'
)
_BATCH = flags.DEFINE_list('batch', ['128', '32'], 'Batch sizes; the first one leads the JSON, and is that of `input`.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'How often every program gets its turn.', lower_bound=2)
_SECONDS = flags.DEFINE_float('seconds', 1.0, 'Shortest time that a program runs in a turn.', lower_bound=0.0)
_ALLOCATOR = flags.DEFINE_enum('allocator', 'tuned', ['tuned', 'default'], "The C library's, in all processes.")
_WIDTH = flags.DEFINE_float('width', 1.0, "Of the network, as a fraction of the paper's.", lower_bound=1 / 128)
_CLASSES = flags.DEFINE_integer('classes', 1000, 'Outputs of fc8.', lower_bound=1)
_LAYERS = flags.DEFINE_bool('layers', True, 'step: measure each layer too.')
_DATASET = flags.DEFINE_string('dataset', 'demo', 'input: a prepared dataset.')
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'input: where it is.')
_IMAGES = flags.DEFINE_string('images', None, 'input: a folder of JPEGs of any size. Default: artificial ones.')
_APPETITE = flags.DEFINE_float('appetite', None, "input: the model's images/s. Default: measured.", lower_bound=0.1)
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object, the last line of standard output.')
parse = parse_arguments


def main(argv: list[str]) -> None:
    """Measures and prints."""
    logging.set_verbosity(logging.ERROR)  # TFDS reports every file that it opens
    what = ' '.join(argv[1:])
    if what not in ('step', 'input'):
        raise InputError(f'{what or "nothing"} cannot be measured: alexnet bench step, or input')
    if what == 'step' and _AGAINST.value == 'tf':
        raise InputError('--against=tf does not go with step: give --against=torch')
    figures, text = _bench_step() if what == 'step' else _bench_input()
    print(text)
    if _JSON.value:
        print(json.dumps(figures))


def _parse_batch_sizes(values: list[str]) -> list[int]:
    if not values or not all(value.isdecimal() and int(value) for value in values) or len({*values}) < len(values):
        raise InputError(f'--batch={",".join(values)}: give different positive numbers, as in --batch=128,32')
    return [int(value) for value in values]


def _bench_step() -> tuple[dict[str, Any], str]:
    from alexnet_jax.benchmark.measure import Turns, measure_step
    from alexnet_jax.benchmark.protocol import Setting
    from alexnet_jax.benchmark.step_figures import format_step_figures, make_step_figures

    fixed, turns = (_WIDTH.value, _CLASSES.value, _ALLOCATOR.value), Turns(_ROUNDS.value, _SECONDS.value)
    settings = [Setting(batch, *fixed) for batch in _parse_batch_sizes(_BATCH.value)]
    options = {'torch': _AGAINST.value == 'torch', 'layers': _LAYERS.value}
    figures = make_step_figures([measure_step(setting, turns, **options) for setting in settings])
    return figures, format_step_figures(figures)


def _bench_input() -> tuple[dict[str, Any], str]:
    from alexnet_jax.benchmark.input_figures import format_input_figures, measure_input_pipeline
    from alexnet_jax.benchmark.measure import Turns
    from alexnet_jax.benchmark.protocol import Setting

    fixed = (_WIDTH.value, _CLASSES.value, _ALLOCATOR.value, _DATASET.value, _DATA_DIR.value)
    setting, turns = Setting(_parse_batch_sizes(_BATCH.value)[0], *fixed), Turns(_ROUNDS.value, _SECONDS.value)
    against = {peer: _AGAINST.value == peer for peer in ('tf', 'torch')}
    figures = measure_input_pipeline(setting, turns, images=_IMAGES.value, appetite=_APPETITE.value, **against)
    return figures, format_input_figures(figures)
