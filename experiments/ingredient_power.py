"""What each part of a network is worth, of a sweep with the same seeds for all: paired effects, and seeds to tell them.

    python -m experiments.ingredient_power SWEEP/results.csv [--effects=0.5,1,2] [--seconds=SECONDS]

The runs of one seed have the same images in the same order, so what a part is worth is the mean of the differences of
pairs: with its 95 % interval (Student's t), a paired t-test, Wilcoxon's signed ranks beside it, and Holm's correction
for the number of parts. The second table is the plan of the next sweep: how many seeds find an effect of so many points
with a probability of 80 %, at the level that Holm's first step has. Standard deviations of few pairs are uncertain, so
the plan takes the upper end of their one-sided 80 % interval (Browne 1995, "On the use of a pilot sample for sample
size determination"). `--seconds`, of one core for a run, gives the plan's hours on two cores.
"""

import argparse
import csv
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

ALPHA, POWER = 0.05, 0.8
MAX_SEEDS = 10_000
PROTOCOL = 'centre_top1_error'
# Points of top-1 error that others lost without the part, with where they say so.
PUBLISHED = {
    'norm': 'paper 3.3: 1.4, 2 on CIFAR-10; his 19pct and 18pct: 1; CHM 148: 1.3',
    'overlap': 'paper 3.4: 0.4; CHM 147: 0.4',
    'relu': 'paper 3.1: six times the epochs',
    'maximum': 'none',
    'towers': 'paper 3.2: 1.7; CHM 145-half, of 2010: 1.7',
    'exchange': 'CHM 150: 1.1',
    'lighting': 'paper 4.1: over 1',
    'dropout': 'paper 4.2: twice the iterations with it, overfitting without',
}


@dataclasses.dataclass(frozen=True)
class Effect:
    """The mean of paired differences, in their unit; p-values are two-sided and not corrected."""

    pairs: int
    mean: float
    sd: float  # of a sample
    low: float  # of the 95 % interval
    high: float
    t_p: float
    wilcoxon_p: float


def measure_effect(differences: Sequence[float] | np.ndarray) -> Effect:
    """Measures the effect in differences of at least two pairs."""
    differences = np.asarray(differences, float)
    n, mean, sd = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / math.sqrt(n)
    if sd == 0:
        p = float(mean == 0)
    else:
        p = float(2 * stats.t.sf(abs(mean) / (sd / math.sqrt(n)), n - 1))
    ranks = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
    return Effect(n, mean, sd, mean - half, mean + half, p, ranks)


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number, by Holm's steps (1979)."""
    order, corrected, largest = np.argsort(p_values), [0.0] * len(p_values), 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = largest
    return corrected


def compute_power(seeds: int, *, effect: float, sd: float, alpha: float) -> float:
    """Computes the probability that the two-sided paired t-test of so many seeds finds an effect at level `alpha`."""
    if sd == 0:
        return float(effect != 0)
    critical, shift = stats.t.ppf(1 - alpha / 2, seeds - 1), effect / sd * math.sqrt(seeds)
    return float(stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift))


def count_seeds(*, effect: float, sd: float, alpha: float, power: float = POWER) -> int:
    """Counts the seeds, at least two, that find an effect with probability `power`; MAX_SEEDS for more than that."""
    low, high = 1, 2
    while high < MAX_SEEDS and compute_power(high, effect=effect, sd=sd, alpha=alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = compute_power(middle, effect=effect, sd=sd, alpha=alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return min(high, MAX_SEEDS)


def bound_sd(sd: float, *, pairs: int, level: float = 0.8) -> float:
    """Bounds a standard deviation that so many pairs have shown, from above, with probability `level`."""
    return sd * math.sqrt((pairs - 1) / float(stats.chi2.ppf(1 - level, pairs - 1)))


def load_errors(path: pathlib.Path) -> dict[str, dict[str, float]]:
    """Loads {part taken away, '' for none: {seed: top-1 error in %}} of the finished runs."""
    found: dict[str, dict[str, float]] = {}
    with path.open(newline='') as file:
        for row in csv.DictReader(file):
            if row[PROTOCOL]:
                part = row['without'].replace('none', '')
                found.setdefault(part, {})[row['seed']] = 100 * float(row[PROTOCOL])
    return found


def pair_errors(errors: Mapping[str, Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Pairs the errors without each part with those of the whole network: {part: differences in points}."""
    whole = errors['']
    both = {part: [seed for seed in own if seed in whole] for part, own in errors.items() if part}
    return {
        part: np.array([errors[part][seed] - whole[seed] for seed in seeds])
        for part, seeds in both.items()
        if len(seeds) > 1
    }


def format_effects(errors: Mapping[str, Mapping[str, float]]) -> str:
    """Formats the effects as Markdown, the largest first."""
    effects = {part: measure_effect(differences) for part, differences in pair_errors(errors).items()}
    corrected = dict(zip(effects, correct_holm([effect.t_p for effect in effects.values()]), strict=True))
    lines = [
        '| without | pairs | more errors, points | 95 % interval | p, paired t | Wilcoxon | Holm | | published |',
        '|---|---|---|---|---|---|---|---|---|',
    ]
    for part, own in sorted(effects.items(), key=lambda item: -item[1].mean):
        verdict = 'not told from noise'
        if corrected[part] < ALPHA:
            verdict = ('worse' if own.mean > 0 else 'better') + ' without it'
        lines.append(
            f'| {part} | {own.pairs} | {own.mean:+.2f} | {own.low:+.2f} to {own.high:+.2f} | {own.t_p:.2g} | '
            f'{own.wilcoxon_p:.2g} | {corrected[part]:.2g} | {verdict} | {PUBLISHED.get(part, "none")} |'
        )
    return '\n'.join(lines)


def format_plan(errors: Mapping[str, Mapping[str, float]], effects: Sequence[float], seconds: float | None) -> str:
    """Formats the seeds that find each of `effects`, in points, as Markdown; with the hours of all of them."""
    pairs = pair_errors(errors)
    level = ALPHA / max(1, len(pairs))
    whole = np.array(list(errors[''].values()))
    heads = ''.join(f' seeds for {effect:g} |' for effect in effects)
    lines = [
        f'The whole network: {whole.mean():.2f} ± {whole.std(ddof=1):.2f} % over {len(whole)} seeds. '
        f'Level {level:.4g}, power {POWER:g}.',
        '',
        f'| without | deviation of pairs | of unpaired | upper 80 % of pairs |{heads}',
        '|---|---|---|---|' + '---|' * len(effects),
    ]
    needed = []
    for part, differences in pairs.items():
        sd = float(differences.std(ddof=1))
        own = np.array(list(errors[part].values()))
        unpaired = math.sqrt(float(own.var(ddof=1) + whole.var(ddof=1)))
        upper = bound_sd(sd, pairs=len(differences))
        counts = [count_seeds(effect=effect, sd=upper, alpha=level) for effect in effects]
        needed.append(counts)
        cells = ''.join(f' {count} |' for count in counts)
        lines.append(f'| {part} | {sd:.2f} | {unpaired:.2f} | {upper:.2f} |{cells}')
    if seconds is not None and needed:
        runs = (1 + len(pairs)) * np.max(needed, axis=0)
        hours = ', '.join(f'{count * seconds / 7200:.1f} h for {e:g}' for count, e in zip(runs, effects, strict=True))
        lines += ['', f'The whole table on two cores, {seconds:g} s of one core a run: {hours}.']
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('results', type=pathlib.Path)
    parser.add_argument('--effects', default='0.5,1,2')
    parser.add_argument('--seconds', type=float)
    options = parser.parse_args()
    errors = load_errors(options.results)
    print(format_effects(errors), end='\n\n')
    print(format_plan(errors, [float(effect) for effect in options.effects.split(',')], options.seconds))


if __name__ == '__main__':
    main()
