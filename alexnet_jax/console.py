"""Text for the person who watches: lines on standard error, durations, columns, hints at names."""

import re
import sys
from collections.abc import Iterable, Sequence


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


def suggest(word: str, known: Iterable[str], *, prefix: str = '') -> str:
    """Says which of `known` the unknown `word` misspells, or lists them all; `prefix` is put before each.

    A word that is merely alike may mean the opposite (warmup_epochs and drop_epochs, min and max), so each part of it
    must be the same but for one letter, and if it is shorter than four letters the same.
    """
    known = sorted(known)
    for same in (_is_same, _is_misspelt):
        if near := next((name for name in known if same(word, name)), None):
            return f'did you mean {prefix + near!r}?'
    return f'known are {", ".join(prefix + name for name in known)}'


def _is_same(word: str, name: str) -> bool:
    return re.sub('[-_]', '', word.lower()) == re.sub('[-_]', '', name.lower())


def _is_misspelt(word: str, name: str) -> bool:
    parts, wanted = (re.split('[-_]', text.lower()) for text in (word, name))
    if len(parts) != len(wanted):
        parts, wanted = [''.join(parts)], [''.join(wanted)]
    return all(
        part == other or (max(len(part), len(other)) >= 4 and _has_one_mistake(part, other))
        for part, other in zip(parts, wanted, strict=True)
    )


def _has_one_mistake(a: str, b: str) -> bool:
    """Whether one letter is missing, too many or another, or two neighbours are exchanged."""
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
