"""Measures the speed of this project on this machine's CPU or GPU, in processes that take turns. Close other programs.

alexnet bench step                    training and inference, each layer, beside the machine's ceilings
alexnet bench step --against=torch    and beside the same network in PyTorch (pip install 'alexnet-jax[torch]')
alexnet bench step --device=gpu       one GPU, each --precision, beside its largest product; --against=torch too
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
_DEVICE = flags.DEFINE_enum('device', 'cpu', ['cpu', 'gpu'], 'step: what the networks run on.')
_PRECISION = flags.DEFINE_list(
    'precision', ['float32', 'tf32', 'bfloat16'], 'step --device=gpu: of products; tf32 is set on both sides alike.'
)
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
    measure_network = _bench_gpu if _DEVICE.value == 'gpu' else _bench_step
    figures, text = measure_network() if what == 'step' else _bench_input()
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


def _bench_gpu() -> tuple[dict[str, Any], str]:
    if unknown := set(_PRECISION.value) - {'float32', 'tf32', 'bfloat16'}:
        raise InputError(f'--precision={",".join(sorted(unknown))}: give some of float32,tf32,bfloat16')
    from alexnet_jax.benchmark.gpu_figures import format_gpu_figures, make_gpu_figures
    from alexnet_jax.benchmark.measure import Turns, find_gpu, measure_accelerator
    from alexnet_jax.benchmark.protocol import Setting

    device = find_gpu()
    if device is None:
        raise InputError("--device=gpu: JAX finds no GPU here: pip install 'alexnet-jax[cuda12]', and see nvidia-smi")
    turns, fixed = Turns(_ROUNDS.value, _SECONDS.value), (_WIDTH.value, _CLASSES.value, _ALLOCATOR.value)
    sizes = _parse_batch_sizes(_BATCH.value)
    settings = [Setting(b, *fixed, device='gpu', precision=p) for p in _PRECISION.value for b in sizes]
    against = _AGAINST.value == 'torch'
    figures = make_gpu_figures([measure_accelerator(setting, turns, torch=against) for setting in settings], device)
    return figures, format_gpu_figures(figures)


def _bench_input() -> tuple[dict[str, Any], str]:
    from alexnet_jax.benchmark.input_figures import format_input_figures, measure_input_pipeline
    from alexnet_jax.benchmark.measure import Turns
    from alexnet_jax.benchmark.protocol import Setting

    fixed = (_WIDTH.value, _CLASSES.value, _ALLOCATOR.value, _DATASET.value, _DATA_DIR.value)
    setting, turns = Setting(_parse_batch_sizes(_BATCH.value)[0], *fixed), Turns(_ROUNDS.value, _SECONDS.value)
    against = {peer: _AGAINST.value == peer for peer in ('tf', 'torch')}
    figures = measure_input_pipeline(setting, turns, images=_IMAGES.value, appetite=_APPETITE.value, **against)
    return figures, format_input_figures(figures)
