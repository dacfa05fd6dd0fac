"""Makes a dataset ready for training: square JPEG or raw records, mean image, RGB covariance.

alexnet prepare --dataset=demo                          the embedded dataset
alexnet prepare --images=DIR --name=NAME                DIR/{train,validation}/<class>/<image>
alexnet prepare --images=DIR --name=NAME --validation_share=0.1    DIR/<class>/<image>, or DIR/train/<class>/<image>
alexnet prepare --dataset=imagenet2012 --manual_dir=DIR    from the two official archives in DIR
alexnet prepare --dataset=NAME                          any TFDS image classification dataset
alexnet prepare --from=NAME --encoding=raw              NAME_raw: the same records, decoded beforehand

--check tells first what is missing, how much disk it takes and how long. Interrupted, the same command goes on from
the last whole shard of 8,192 images. For a prepared dataset, --verify=NAME reads every byte again, --show=NAME draws
examples.
"""

import json
from typing import Any

from absl import flags, logging

from alexnet_jax.commands.command_line import parse_options
from alexnet_jax.console import info

_SOURCE_ARGS = (
    flags.DEFINE_string('images', None, 'Folder that holds {train,validation[,test]}/<class>/<image>, or like one.'),
    flags.DEFINE_string('dataset', None, "'demo', 'imagenet2012', or another TFDS image classification set."),
    flags.DEFINE_string('from', None, 'Prepared dataset whose JPEG records are to be rewritten by --encoding=raw.'),
    flags.DEFINE_enum('encoding', 'jpeg', ['jpeg', 'raw'], 'Of records; raw is larger and needs no decoding.'),
    flags.DEFINE_string('name', None, 'Name of the result. Default: that of --dataset, or that of --from and _raw.'),
    flags.DEFINE_string('tfds_dir', '~/tensorflow_datasets', 'Where TFDS keeps its datasets.'),
    flags.DEFINE_string('manual_dir', None, 'Archives that cannot be downloaded, such as ImageNet.'),
    flags.DEFINE_integer('quality', None, 'JPEG quality of records (95); not of demo.', lower_bound=1, upper_bound=100),
    flags.DEFINE_integer(
        'size', None, 'Side of records in pixels (256); not of demo.', lower_bound=16, upper_bound=1024
    ),
    flags.DEFINE_enum(
        'preprocessing', None, ['paper', 'caffe', 'torchvision'], 'Whose way to make squares (paper): docs/data.md.'
    ),
    flags.DEFINE_float(
        'validation_share', None, 'Part of each class to draw for validation.', lower_bound=0.001, upper_bound=0.9
    ),
    flags.DEFINE_integer('validation_seed', 0, 'What decides that draw.', lower_bound=0),
    flags.DEFINE_bool('validation_only', False, 'No training split: to test weights. Of --images or imagenet2012.'),
    flags.DEFINE_bool('keep_originals', False, 'Statistics only: training reads the images that TFDS has (slower).'),
)
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Prepared datasets; the result is DATA_DIR/NAME.')
_ON_ERROR = flags.DEFINE_enum('on_error', 'fail', ['fail', 'skip'], 'What to do about unusable images.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace the dataset if it exists.')
_CHECK = flags.DEFINE_bool('check', False, 'Write nothing: look at the sources, the disk and the time it will take.')
_VERIFY = flags.DEFINE_string('verify', None, 'Read a prepared dataset and compare every file with its sha256.')
_SHOW = flags.DEFINE_string('show', None, 'Draw examples of a prepared dataset, as training sees them, into a PNG.')
_JSON = flags.DEFINE_bool('json', False, 'Print the result as JSON, the last line of stdout.')
parse = parse_options


def main(argv: list[str]) -> None:
    """Prepares, checks, verifies or draws one dataset and prints the result."""
    logging.set_verbosity(logging.ERROR)  # TFDS reports every file that it opens
    fields, text = _run()
    print(text)
    if _JSON.value:
        print(json.dumps(fields))


def describe_interrupt() -> str:
    """Describes what is left of the work at Ctrl-C."""
    if flags.FLAGS.is_parsed() and (_CHECK.value or _VERIFY.value or _SHOW.value):
        return 'the same command starts it again'
    return 'no dataset was changed; the same command goes on from the last shard that was finished'


def _run() -> tuple[dict[str, Any], str]:
    from alexnet_jax.data import dataset  # here: --help stays quick
    from alexnet_jax.data.preparing import contact_sheet, estimate, sources, writer
    from alexnet_jax.logs import progress

    data_dir = _DATA_DIR.value
    if _SHOW.value is not None:
        shown = dataset.open_dataset(_SHOW.value, data_dir=data_dir)
        path = shown.directory.with_name('contact_sheet.png')
        contact_sheet.write_contact_sheet(shown, path)
        return {'path': str(path)}, f'drawn: {path}'
    with progress.show_progress('files' if _VERIFY.value else 'images') as report:
        if _VERIFY.value is not None:
            found = dataset.verify_dataset(_VERIFY.value, data_dir=data_dir, progress=report)
            return {'fingerprint': found.fingerprint}, f'{found.directory} is whole; fingerprint {found.fingerprint}'
        values = {flag.name: flag.value for flag in _SOURCE_ARGS}
        args = sources.SourceArgs(from_dataset=values.pop('from'), **values)
        if _CHECK.value:
            done: Any = estimate.estimate_preparation(
                sources.make_spec(args, data_dir=data_dir, make=False), data_dir=data_dir
            )
        else:
            choices = {'overwrite': _OVERWRITE.value, 'skip_unusable': _ON_ERROR.value == 'skip'}
            writer.check_name(sources.get_dataset_name(args), data_dir=data_dir, overwrite=_OVERWRITE.value)
            done = writer.prepare(
                sources.make_spec(args, data_dir=data_dir), data_dir=data_dir, progress=report, **choices
            )
    for line in done.notes:
        info(line)
    return done.to_json(), done.format_text()
