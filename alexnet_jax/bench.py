"""Measures the speed of this project's network on this machine's CPU, in processes that take turns.

python -m alexnet_jax.bench step                    training and inference, each layer, beside the machine's ceilings
python -m alexnet_jax.bench step --against=torch    and beside the same network in PyTorch (requirements-bench.txt)

With the default options about four minutes on 2 cores, and a quarter of an hour against PyTorch. Close other programs.
"""

import json
import sys
from typing import Any

from absl import app, flags

from alexnet_jax import InputError

_AGAINST = flags.DEFINE_enum(
    'against', None, ['torch'], 'What to compare with: PyTorch, eager, compiled and at its best.'
)
_BATCH = flags.DEFINE_list('batch', ['128', '32'], 'Batch sizes; the first one leads the JSON.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'How often every program gets its turn.', lower_bound=2)
_SECONDS = flags.DEFINE_float('seconds', 1.0, 'Shortest time that a program runs in a turn.', lower_bound=0.0)
_ALLOCATOR = flags.DEFINE_enum(
    'allocator', 'tuned', ['tuned', 'default'], "The C library's allocator, in all processes."
)
_WIDTH = flags.DEFINE_float('width', 1.0, "Of the network, as a fraction of the paper's.", lower_bound=1 / 128)
_CLASSES = flags.DEFINE_integer('classes', 1000, 'Outputs of fc8.', lower_bound=1)
_LAYERS = flags.DEFINE_bool('layers', True, 'Measure each layer too.')
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object, the last line of standard output.')


def main(argv: list[str]) -> None:
    """Measures and prints."""
    try:
        if argv[1:] != ['step']:
            raise InputError(f'{" ".join(argv[1:]) or "nothing"} cannot be measured: python -m alexnet_jax.bench step')
        figures, text = _measure(_batches(_BATCH.value))
    except InputError as error:
        sys.exit(f'error: {error}')
    print(text)
    if _JSON.value:
        print(json.dumps(figures))


def _batches(values: list[str]) -> list[int]:
    if not values or not all(value.isdecimal() and int(value) for value in values) or len({*values}) < len(values):
        raise InputError(f'--batch={",".join(values)}: give different positive numbers, as in --batch=128,32')
    return [int(value) for value in values]


def _measure(batches: list[int]) -> tuple[dict[str, Any], str]:
    from alexnet_jax.benchmark import figures, measure, report
    from alexnet_jax.benchmark.protocol import Setting

    settings = [Setting(batch, _WIDTH.value, _CLASSES.value, _ALLOCATOR.value) for batch in batches]
    options: dict[str, Any] = {'torch': _AGAINST.value == 'torch', 'layers': _LAYERS.value}
    options |= {'rounds': _ROUNDS.value, 'seconds': _SECONDS.value}
    options['progress'] = lambda line: print(line, file=sys.stderr, flush=True)
    found = figures.report([measure.measure(setting, **options) for setting in settings])
    return found, report.text(found)


if __name__ == '__main__':
    app.run(main)
