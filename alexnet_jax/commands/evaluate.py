"""Tests a trained network as the paper did, beside the published errors of the same protocol.

    alexnet evaluate --workdir=runs/NAME                          every validation image, both protocols
    alexnet evaluate --workdir=runs/A,runs/B --output=DIR         each of them, and their mean predictions
    alexnet evaluate --weights=FILE --dataset=NAME --output=DIR   weights from elsewhere
    alexnet evaluate --workdir=runs/NAME --labels=real.json       against other labels, several of an image
    alexnet evaluate --workdir=runs/NAME --corruptions=all        corrupted in 15 ways, each at five severities
    alexnet evaluate --workdir=runs/NAME --corrupted=DIR          images that were corrupted elsewhere

Writes per_class.csv, confusion.csv, calibration.csv and result.json; with --labels the last two; of corruptions
corruptions.csv and .png, and result.json. Any mesh and number of processes gives the same numbers; several hosts run
the same command each, as with alexnet_jax.main. docs/evaluation.md explains the rest.
"""

import json

from absl import flags, logging

from alexnet_jax.commands import network_flags, process_flags
from alexnet_jax.commands.command_line import parse_options
from alexnet_jax.distributed.exit import ExitHandler
from alexnet_jax.sharding.backend import tune_allocator

_NETWORK = network_flags.define(several=True)
_TEST = (
    flags.DEFINE_string('dataset', None, 'A prepared dataset. Default: what the runs were trained on.'),
    flags.DEFINE_string('data_dir', None, 'Prepared datasets. Default: that of the runs, or data.'),
    flags.DEFINE_string('split', 'validation', 'Which images of the dataset.'),
    flags.DEFINE_enum(
        'preprocessing',
        None,
        ['paper', 'caffe', 'torchvision'],
        "How images become squares. Default: prepared ones as they are, others as the network's own were.",
    ),
    flags.DEFINE_enum(
        'among',
        'all',
        ['all', 'dataset'],
        "Which classes compete: all of the network's, or the dataset's, as of ImageNet-A.",
    ),
    flags.DEFINE_list('protocols', [], 'centre, ten_view, or both. Default: both; of corruptions centre.'),
    flags.DEFINE_integer('batch_size', None, "Images at once. Default: the first run's.", lower_bound=1),
    flags.DEFINE_string(
        'output', None, 'Folder of results. Default, of one run: WORKDIR/evaluation, relabelled or corruptions.'
    ),
    flags.DEFINE_string(
        'labels', None, "Other labels, by file name: ReaL's real.json, JSON {file: [class, ...]}, or CSV."
    ),
    flags.DEFINE_list('corruptions', [], 'Corrupt the images first: all, or names such as fog,snow.'),
    flags.DEFINE_list('severities', [], 'How strongly: 1..5, or some, such as 1,3. Default: 1..5.'),
    flags.DEFINE_integer('seed', 0, 'Of what corruptions draw.', lower_bound=0),
    flags.DEFINE_string('corrupted', None, 'A folder of corrupted images, ImageNet-C or CIFAR-10-C, as published.'),
)
_MESH = flags.DEFINE_list('mesh', ['1', '1'], 'Devices, data,tower: 1,2 has a tower on each of two.')
_JSON = flags.DEFINE_bool('json', False, 'Print result.json too, on one line, the last of standard output.')
_GROUP, _TIMES = process_flags.define()
parse = parse_options


def main(argv: list[str]) -> None:
    """Tests, and prints the tables."""
    del argv
    logging.set_verbosity(logging.ERROR)  # Orbax and TFDS tell every step they take
    exit_handler = ExitHandler()
    result, text = exit_handler.exit_on_error(lambda: _run(exit_handler))
    if text:  # one process speaks for all
        print(text)
        if _JSON.value:
            print(json.dumps(result))


def _run(exit_handler: ExitHandler) -> tuple[dict, str]:
    tune_allocator()  # before anything imports jax
    from alexnet_jax.evaluation.evaluate_networks import evaluate_networks
    from alexnet_jax.evaluation.evaluation_settings import EvaluationSettings
    from alexnet_jax.sharding.mesh import parse_mesh

    settings = EvaluationSettings(mesh=parse_mesh(_MESH.value), **{flag.name: flag.value for flag in _TEST})
    return evaluate_networks(_NETWORK(), settings, group=_GROUP(), exit_handler=exit_handler, **_TIMES())
