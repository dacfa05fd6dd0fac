"""Writes a report about a run, or about several side by side: one HTML file that needs nothing else.

    alexnet report --workdir=runs/NAME                                  runs/NAME/report.html
    alexnet report --workdir=runs/ONE,runs/OTHER --output=FILE.html     compared
    alexnet report --workdir=runs/NAME --figures=DIR                    its pictures as PNGs too

It has curves, the first layer's filters by tower and how far the towers have specialised, an image's feature maps, the
confusion matrix, the errors beside the paper's, the messages between devices, and the speed. docs/report.md
"""

import pathlib

from absl import flags, logging

from alexnet_jax.commands.command_line import parse_options, split_paths

_WORKDIR = flags.DEFINE_multi_string('workdir', None, 'Run folder, or several: A,B or a flag for each.')
_OUTPUT = flags.DEFINE_string(
    'output', None, 'The file to write. Default: WORKDIR/report.html; of several, comparison.html in the first.'
)
_FIGURES = flags.DEFINE_string('figures', None, 'A folder for the pictures as PNGs.')
_IMAGE = flags.DEFINE_string('image', None, 'A photograph for the feature maps. Default: a validation image.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where prepared datasets are. Default: where the run had them.')
_PROTOCOL = flags.DEFINE_enum(
    'protocol', 'centre', ['centre', 'ten_view'], 'How mistakes are counted; ten_view takes ten times as long.'
)
flags.mark_flag_as_required('workdir')
parse = parse_options


def main(_: list[str]) -> None:
    """Writes the report; prints its size."""
    logging.set_verbosity(logging.ERROR)
    from alexnet_jax.report.write_report import write_report

    line = write_report(
        [pathlib.Path(workdir) for workdir in split_paths(_WORKDIR.value)],
        output=pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None,
        figures=pathlib.Path(_FIGURES.value) if _FIGURES.value else None,
        image=pathlib.Path(_IMAGE.value) if _IMAGE.value else None,
        data_dir=_DATA_DIR.value,
        protocol=_PROTOCOL.value,
    )
    print(line)
