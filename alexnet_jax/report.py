"""Writes a report about a run, or about several beside one another: one HTML file that needs nothing else.

    python -m alexnet_jax.report --workdir=runs/NAME --output=report.html
    python -m alexnet_jax.report --workdir=runs/ONE,runs/OTHER --output=report.html      compared
    python -m alexnet_jax.report --workdir=runs/NAME --figures=DIR                       its pictures as PNGs too

Curves, the first layer's filters by tower and how far the towers have specialised, an image on its way through the
layers, what is confused with what, the errors beside the paper's, who talks to whom, and the speed. docs/report.md
"""

import pathlib
import sys

from absl import app, flags, logging

from alexnet_jax import InputError
from alexnet_jax.training.command_line import parse_options, paths_of

_WORKDIR = flags.DEFINE_multi_string('workdir', None, 'Run folder, or several: A,B or a flag for each.')
_OUTPUT = flags.DEFINE_string('output', 'report.html', 'The file to write.')
_FIGURES = flags.DEFINE_string('figures', None, 'A folder for the pictures as PNGs.')
_IMAGE = flags.DEFINE_string('image', None, 'A photograph for the feature maps. Default: a validation image.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where prepared datasets are. Default: where the run had them.')
_PROTOCOL = flags.DEFINE_enum(
    'protocol', 'centre', ['centre', 'ten_view'], 'Of what is confused; ten_view takes ten times as long.'
)
flags.mark_flag_as_required('workdir')


def main(argv: list[str]) -> None:
    """Writes the report."""
    del argv
    logging.set_verbosity(logging.ERROR)
    from alexnet_jax.running.report import write_report

    try:
        line = write_report(
            [pathlib.Path(workdir) for workdir in paths_of(_WORKDIR.value)],
            output=pathlib.Path(_OUTPUT.value),
            figures=pathlib.Path(_FIGURES.value) if _FIGURES.value else None,
            image=pathlib.Path(_IMAGE.value) if _IMAGE.value else None,
            data_dir=_DATA_DIR.value,
            protocol=_PROTOCOL.value,
        )
    except InputError as error:
        sys.exit(f'error: {error}')
    print(line)


if __name__ == '__main__':
    app.run(main, flags_parser=parse_options)
