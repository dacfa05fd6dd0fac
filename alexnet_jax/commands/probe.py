"""Tells how well a simple classifier on each layer's features knows a dataset: the transfer curve by depth.

    alexnet probe --weights=imagenet_trunk --dataset=NAME --output=DIR
    alexnet probe --workdir=runs/NAME --dataset=NAME --layers=conv5,fc7 --classifier=neighbours --output=DIR

The features of the centre crop are computed once and kept by the hashes of weights and dataset; those of convolutions
are averaged over a grid, to 4,096 numbers at most. The classifier learns from the training split, where its
regularisation is chosen too, and is tested on another. Writes layers.csv, per_class.csv, confusion.csv, layers.png and
result.json. Needs the extra `probe` (scikit-learn); one process, one device.
"""

import json

from absl import flags, logging

from alexnet_jax.commands import network_flags
from alexnet_jax.commands.command_line import parse_options
from alexnet_jax.sharding.backend import tune_allocator

_NETWORK = network_flags.define(with_classes=False)
_OPTIONS = (
    flags.DEFINE_string('dataset', None, 'A prepared dataset.', required=True),
    flags.DEFINE_string('data_dir', None, 'Prepared datasets. Default: that of the run, or data.'),
    flags.DEFINE_string('split', 'validation', 'The images to test on.'),
    flags.DEFINE_list('layers', [], 'Layers or stages, A,B. Default: every layer that has weights.'),
    flags.DEFINE_string('classifier', 'linear', 'linear or neighbours.'),
    flags.DEFINE_string('output', None, 'A folder for the results.', required=True),
    flags.DEFINE_string('cache', None, 'A folder for features. Default: OUTPUT/features.'),
    flags.DEFINE_integer('batch_size', None, "Images at once. Default: the run's, or 128.", lower_bound=1),
)
_JSON = flags.DEFINE_bool('json', False, 'Print the result as one JSON object.')
parse = parse_options


def main(_: list[str]) -> None:
    """Probes, and prints the table."""
    logging.set_verbosity(logging.ERROR)
    tune_allocator()  # before anything imports jax
    from alexnet_jax.evaluation.probe import ProbeSettings, probe

    result, text = probe(_NETWORK(), ProbeSettings(**{flag.name: flag.value for flag in _OPTIONS}))
    print(json.dumps(result) if _JSON.value else text)
