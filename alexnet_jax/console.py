"""Text for the person who watches: lines on standard error, durations, aligned columns."""

import sys
from collections.abc import Sequence


def info(text: str) -> None:
    """Prints one line to standard error at once: standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def format_duration(seconds: float) -> str:
    """Formats seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


def align_columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Aligns cells in columns, those of `right` flush right; a row of no cells is an empty line."""
    widths = [max(map(len, column)) for column in zip(*filter(None, rows), strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, range(len(row)), strict=False)
        return '  '.join(cell.rjust(w) if i in right else cell.ljust(w) for cell, w, i in cells).rstrip()

    return '\n'.join(map(line, rows))
