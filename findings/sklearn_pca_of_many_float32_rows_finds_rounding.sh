#!/usr/bin/env bash
# scikit-learn 1.9.1: PCA with its default solver, on float32 rows whose mean is some hundred standard deviations, finds the rounding
# errors: a first component with 59 % of the variance in noise that has none, and whitened columns with a deviation of 8,000,000.
#
# Guess: PCA takes the mean off the rows first, so where they lie does not matter, and float32 costs a digit or two.
# Seen: since 1.5 rows of up to 1,000 columns that are ten times as many as the columns go to covariance_eigh, which forms X'X in
#       float32 and takes the mean's part off afterwards. With 300 standard deviations the first variance is 4.9 for 1.1 and the last 0; with
#       1,000 it is 32. 200 of the same rows are right, for they go to the SVD of centred rows. So a plot that was fine on a
#       sample shows one strong direction on all of the data, where the data are 16-bit images, raw sensor values, times or
#       features with a large bias; with whiten=True, the step before k-means or a ridge, the last columns are divided by 1e-7.
# What to do: rows.astype(np.float64), or take the mean off before fit, or svd_solver='full'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from sklearn.decomposition import PCA

noise = np.random.default_rng(0).normal(size=(10_000, 25))  # equal in all directions: each component has 4 % of the variance


def measure(rows, **options):
    """Returns (first variance, its share of all, largest standard deviation of the whitened columns)."""
    model = PCA(whiten=True, **options).fit(rows)
    return float(model.explained_variance_[0]), float(model.explained_variance_ratio_[0]), float(model.transform(rows).std(0).max())


for mean, least in ((0, None), (300, 3), (1000, 20)):
    rows = (mean + noise).astype(np.float32)
    centred = rows - rows.mean(0, dtype=np.float64).astype(np.float32)
    found = measure(rows)
    print(f'mean {mean}: first variance {found[0]:.2f}, {found[1]:.0%} of all, whitened deviation {found[2]:.3g}')
    right = {
        'float64': measure(rows.astype(np.float64)),
        "svd_solver='full'": measure(rows, svd_solver='full'),
        'mean off before': measure(centred),
    }
    for name, values in right.items():
        print(f'  {name}: {values[0]:.2f}, {values[1]:.0%}, {values[2]:.3f}')
        np.testing.assert_allclose(values, right['float64'], rtol=0.01)
    if least is None:
        np.testing.assert_allclose(found, right['float64'], rtol=0.01)
    else:
        assert found[0] > least and found[1] > 0.1 and found[2] > 1000
        few = measure(rows[:200]), measure(rows[:200].astype(np.float64))
        print(f'  200 rows: {few[0][0]:.2f}, in float64 {few[1][0]:.2f}')
        np.testing.assert_allclose(few[0], few[1], rtol=0.01)
PYTHON
echo 'unchanged: PCA of scikit-learn 1.9.1 finds the rounding of float32 rows'
