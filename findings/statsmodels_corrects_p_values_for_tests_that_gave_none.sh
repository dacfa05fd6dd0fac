#!/usr/bin/env bash
# statsmodels 0.15.0: one NaN among the p-values makes multipletests(method='fdr_bh') return NaN for all corrected p-values, next to a
# list of decisions that says which are rejected; with Hommel's method one NaN takes every rejection back.
#
# Guess: a test that gave no p-value is left out of the correction, as in R's p.adjust, and stays NaN; or NaN is refused, as by
#        scipy.stats.false_discovery_control.
# Seen: NaN is sorted behind the others and counted as a test. The step-up methods take a running minimum from there, so all their
#       corrected p-values are NaN, and p < 0.05 rejects nothing, while reject goes by the uncorrected ones and may say True: one
#       call, two answers. Holm and Bonferroni give numbers, for one test more than there was. NaN comes by itself: ttest_rel
#       of two networks with the same errors for every seed, a corruption that changes nothing, gives it, so a table of 15
#       corruptions loses its findings to the one row in which nothing happened.
# What to do: correct p[~np.isnan(p)] alone, and say how many tests those were.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check statsmodels==0.15.0 scipy==1.17.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

errors = np.array([0.41, 0.42, 0.40, 0.43, 0.41])  # of five seeds
none = float(stats.ttest_rel(errors, errors).pvalue)
assert np.isnan(none)
tested = np.array([0.001, 0.010, 0.020, 0.030])

found = {}
for method in ('bonferroni', 'holm', 'simes-hochberg', 'hommel', 'fdr_bh', 'fdr_by', 'fdr_tsbh'):
    reject, corrected = multipletests(tested, method=method)[:2]
    reject_of_all, corrected_of_all = multipletests([*tested, none], method=method)[:2]
    found[method] = reject, corrected, reject_of_all[:4], corrected_of_all[:4]
    print(f'{method}: {corrected.round(4).tolist()}, {int(reject.sum())} rejected')
    print(f'  with NaN: {corrected_of_all[:4].round(4).tolist()}, {int(reject_of_all[:4].sum())} rejected')

for method in ('simes-hochberg', 'hommel', 'fdr_bh', 'fdr_by', 'fdr_tsbh'):
    reject, corrected, _, corrected_of_all = found[method]
    assert np.isfinite(corrected).all() and np.isnan(corrected_of_all).all(), method
assert found['fdr_bh'][2].all()  # all are rejected, and no corrected p-value is a number
assert found['hommel'][0].all() and not found['hommel'][2].any()
for method in ('bonferroni', 'holm'):
    np.testing.assert_allclose(found[method][3], multipletests([*tested, 1.0], method=method)[1][:4])
assert found['holm'][0].sum() == 4 and found['holm'][2].sum() == 2

same = [0.04] * 4
rejected = [int(multipletests(same + [none] * count, method='fdr_bh')[0].sum()) for count in (0, 1, 2)]
print(f'four p-values of 0.04 with 0, 1 and 2 NaN: {rejected} rejected by fdr_bh')
assert rejected == [4, 4, 0]

try:
    stats.false_discovery_control([*tested, none])
except ValueError as error:
    print('scipy:', error)
else:
    raise SystemExit('scipy takes NaN now')
PYTHON
echo 'unchanged: multipletests of statsmodels 0.15.0 counts NaN as a test'
