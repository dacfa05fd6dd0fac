"""Makes a dataset ready for training: 256 x 256 JPEG records, mean image, RGB covariance.

python -m alexnet_jax.prepare --dataset=demo                        the embedded dataset
python -m alexnet_jax.prepare --images=DIR --name=NAME              DIR/{train,validation}/<class>/<image>
python -m alexnet_jax.prepare --dataset=imagenet2012 --manual_dir=DIR    any TFDS image classification dataset
"""

import json
import sys
from typing import TYPE_CHECKING, Any

from absl import app, flags, logging

from alexnet_jax import InputError

if TYPE_CHECKING:
    from alexnet_jax.data.writer import Prepared

_IMAGES = flags.DEFINE_string('images', None, 'Folder that holds {train,validation[,test]}/<class>/<image>.')
_DATASET = flags.DEFINE_string('dataset', None, "'demo', or the TFDS name of an image classification set.")
_NAME = flags.DEFINE_string('name', None, 'Name of the result. Default: that of --dataset.')
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Prepared datasets; the result is DATA_DIR/NAME.')
_TFDS_DIR = flags.DEFINE_string('tfds_dir', '~/tensorflow_datasets', 'Where TFDS keeps its datasets.')
_MANUAL_DIR = flags.DEFINE_string('manual_dir', None, 'Archives that TFDS cannot download, such as ImageNet.')
_QUALITY = flags.DEFINE_integer('quality', 95, 'JPEG quality of records; not of demo.', lower_bound=1, upper_bound=100)
_ON_ERROR = flags.DEFINE_enum('on_error', 'fail', ['fail', 'skip'], 'What to do about unusable images.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace the dataset if it exists.')
_JSON = flags.DEFINE_bool('json', False, 'Print the result as JSON, the last line of stdout.')


def main(argv: list[str]) -> None:
    """Prepares one dataset and prints what it has become."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}: options look like --images=DIR')
    logging.set_verbosity(logging.ERROR)  # TFDS reports every file that it opens
    try:
        done = _prepare()
    except InputError as e:
        sys.exit(f'error: {e}')
    except KeyboardInterrupt:
        sys.exit('interrupted: no dataset was written or changed')
    for line in (*done.notes, *(f'skipped {reason}' for reason in done.skipped)):
        print(line, file=sys.stderr)
    print(f'{"split":12}{"images":>10}{"MB":>10}')
    for split, count in done.splits.items():
        print(f'{split:12}{count:10,}{done.megabytes[split]:10.1f}')
    speed = f'{done.seconds:.1f} s, {sum(done.splits.values()) / done.seconds:.0f} images/s'
    print(f'{len(done.classes)} classes, {speed}: {done.directory}')
    if _JSON.value:
        fields = {key: getattr(done, key) for key in ('name', 'classes', 'splits', 'fingerprint', 'seconds')}
        print(json.dumps(fields | {'directory': str(done.directory), 'skipped': len(done.skipped)}))


def _prepare() -> 'Prepared':
    if (_IMAGES.value is None) == (_DATASET.value is None):
        raise InputError('give --images=DIR --name=NAME, or --dataset=NAME (demo is the embedded one)')
    from alexnet_jax.data import progress, writer  # after the flags are checked: --help stays quick

    with progress.shown_progress() as report:
        common: dict[str, Any] = {'overwrite': _OVERWRITE.value, 'progress': report}
        common['data_dir'] = _DATA_DIR.value
        if _DATASET.value == 'demo':
            if _NAME.value not in (None, 'demo'):
                raise InputError('--dataset=demo keeps its name; leave --name out')
            return writer.prepare_demo(**common)
        common |= {'quality': _QUALITY.value, 'skip_unusable': _ON_ERROR.value == 'skip'}
        if _DATASET.value is None:
            if _NAME.value is None:
                raise InputError('--images needs --name=NAME, what the dataset is to be called')
            return writer.prepare_folder(_IMAGES.value, name=_NAME.value, **common)
        tfds_dirs = {'tfds_dir': _TFDS_DIR.value, 'manual_dir': _MANUAL_DIR.value}
        return writer.prepare_tfds(_DATASET.value, name=_NAME.value, **tfds_dirs, **common)


if __name__ == '__main__':
    app.run(main)
