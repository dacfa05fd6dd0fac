"""The statistics of ablations, against published examples and sums by hand."""

import numpy as np
import pytest
from scipy import stats

from experiments.ingredient_power import (
    bound_sd,
    compute_power,
    correct_holm,
    count_seeds,
    format_effects,
    format_plan,
    load_errors,
    measure_effect,
    pair_errors,
)

# Student (1908), "The probable error of a mean": hours of sleep gained by ten patients, as R's data set `sleep`.
SLEEP = np.array(
    [[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]]
)


def test_measure_effect_gives_what_r_says_of_student_s_sleep():
    """R: t = -4.0621, df = 9, p-value = 0.002833, 95 percent confidence interval -2.4598858 to -0.7001142."""
    effect = measure_effect(SLEEP[1] - SLEEP[0])
    assert (effect.pairs, effect.mean) == (10, pytest.approx(1.58))
    assert (effect.low, effect.high) == (pytest.approx(0.7001142, abs=1e-6), pytest.approx(2.4598858, abs=1e-6))
    assert effect.t_p == pytest.approx(0.002833, abs=5e-7)
    assert effect.t_p == pytest.approx(stats.ttest_rel(*SLEEP).pvalue, rel=1e-12)


def test_measure_effect_gives_wilcoxon_s_probability():
    """By hand: five differences of one sign are one of 2**5 arrangements, and the other tail another."""
    assert measure_effect([1.0, 2.0, 3.0, 4.0, 5.0]).wilcoxon_p == pytest.approx(2 / 2**5)


@pytest.mark.parametrize(('difference', 'p'), [(0.0, 1.0), (2.0, 0.0)])
def test_measure_effect_of_pairs_that_all_differ_alike(difference, p):
    effect = measure_effect([difference] * 4)
    assert (effect.mean, effect.low, effect.high, effect.t_p) == (difference, difference, difference, p)


def test_correct_holm_by_hand():
    """0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which is not below the one before."""
    assert correct_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_holm([0.6, 0.5]) == [1.0, 1.0]


@pytest.mark.parametrize(('effect', 'seeds'), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_count_seeds_gives_g_power_s_numbers(effect, seeds):
    """Faul et al. (2007), G*Power 3: t test of matched pairs, two tails, alpha 0.05, power 0.8, effect size dz."""
    assert count_seeds(effect=effect, sd=1.0, alpha=0.05) == seeds
    assert count_seeds(effect=3 * effect, sd=3.0, alpha=0.05) == seeds


def test_compute_power_is_the_share_of_simulated_sweeps_that_find_the_effect():
    drawn = np.random.default_rng(0).normal(1.0, 1.5, (20_000, 12))
    t = drawn.mean(axis=1) / (drawn.std(axis=1, ddof=1) / 12**0.5)
    found = (np.abs(t) > 3.106).mean()  # a table of Student's t: 11 degrees of freedom, 0.01 in both tails
    assert compute_power(12, effect=1.0, sd=1.5, alpha=0.01) == pytest.approx(found, abs=0.012)


def test_bound_sd_holds_for_four_of_five_pilots():
    sds = np.random.default_rng(1).normal(0.0, 2.0, (20_000, 4)).std(axis=1, ddof=1)
    assert np.mean([bound_sd(sd, pairs=4) > 2.0 for sd in sds]) == pytest.approx(0.8, abs=0.01)


def test_tables_pair_runs_of_the_same_seed(tmp_path):
    path = tmp_path / 'results.csv'
    rows = [('', 0, 0.30), ('', 1, 0.36), ('', 2, 0.33), ('norm', 2, 0.35), ('norm', 0, 0.31), ('norm', 1, 0.38)]
    rows += [('relu', 0, 0.90), ('relu', 1, 0.95), ('overlap', 0, 0.31)]
    lines = [f'{without},{seed},{error}' for without, seed, error in rows]
    path.write_text('\n'.join(['without,seed,centre_top1_error', *lines, 'relu,2,\n']))  # which is not finished
    errors = load_errors(path)
    pairs = pair_errors(errors)
    np.testing.assert_allclose(pairs['norm'], [2.0, 1.0, 2.0])
    np.testing.assert_allclose(pairs['relu'], [60.0, 59.0])
    assert list(pairs) == ['norm', 'relu']  # one pair has no deviation
    head, _, relu, norm = format_effects(errors).splitlines()
    assert head.startswith('| without | pairs |')
    assert relu.startswith('| relu | 2 | +59.50 |') and 'worse without it' in relu
    assert norm.startswith('| norm | 3 | +1.67 | +0.23 to +3.10 |')  # 5/3 +- 4.303 / 3
    plan = format_plan(errors, [1.0], 36.0)
    assert plan.startswith('The whole network: 33.00 ± 3.00 % over 3 seeds.')
    assert '| norm | 0.58 | 4.62 |' in plan


def test_plan_of_parts_without_a_deviation():
    assert (
        compute_power(2, effect=1.0, sd=0.0, alpha=0.05) == 1 and compute_power(2, effect=0.0, sd=0.0, alpha=0.05) == 0
    )
    errors = {'': {'0': 30.0, '1': 31.0}, 'norm': {'0': 31.0}}
    assert '| norm' not in format_plan(errors, [1.0], 36.0)
    assert '| norm | 0.00 |' in format_plan(errors | {'norm': {'0': 31.0, '1': 32.0}}, [1.0], 36.0)
