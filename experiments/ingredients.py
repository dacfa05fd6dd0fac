"""What each part of the network is worth on the embedded dataset, of a finished sweep of configs/ablations.py.

    python -m experiments.ingredients SWEEP/results.csv

Prints a Markdown table: for each part, the error without it, the difference to the whole network, and the probability
of such a difference, or a larger one, if the part made none (Welch's t-test over the seeds, two-sided).
"""

import csv
import pathlib
import sys
import warnings

import numpy as np
from scipy import stats

PROTOCOL = 'centre_top1_error'
SURE = 0.05


def errors_of(path: pathlib.Path) -> dict[str, np.ndarray]:
    """{what is taken away: its top-1 errors in %, one for each seed}; '' is the whole network."""
    found: dict[str, list[float]] = {}
    with path.open(newline='') as file:
        for row in csv.DictReader(file):
            changed = f'{row["crops"]} crops in place of 1,089' if row['crops'] else row['without'].replace('none', '')
            if units := row.get('activation'):  # no column of sweeps of earlier versions
                changed = f'ReLU: {units} in its place'
            found.setdefault(changed, []).append(100 * float(row[PROTOCOL]))
    return {changed: np.array(errors) for changed, errors in found.items()}


def rows_of(errors: dict[str, np.ndarray]) -> list[tuple[str, int, float, float, float, float]]:
    """(what is taken away, seeds, mean, standard deviation, difference, probability), the worst first."""
    whole = errors['']
    rows = []
    for changed, own in errors.items():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', RuntimeWarning)  # of errors that are equal: all at chance
            test = stats.ttest_ind(own, whole, equal_var=False)
        rows.append((changed, len(own), own.mean(), own.std(ddof=1), own.mean() - whole.mean(), float(test.pvalue)))
    return sorted(rows, key=lambda row: -row[2])


def table(errors: dict[str, np.ndarray]) -> str:
    """The rows as Markdown."""
    lines = ['| without | seeds | centre top-1 error, % | difference | p | |', '|---|---|---|---|---|---|']
    for changed, seeds, mean, spread, difference, p in rows_of(errors):
        start = f'| {changed or "(the whole network)"} | {seeds} | {mean:.1f} ± {spread:.1f} |'
        if not changed:
            lines.append(f'{start} | | |')
            continue
        verdict = ('worse' if difference > 0 else 'better') + ' without it' if p < SURE else 'not told from noise'
        lines.append(f'{start} {difference:+.1f} | {p:.1g} | {verdict} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(table(errors_of(pathlib.Path(sys.argv[1]))))
