#!/usr/bin/env bash
# numba 0.68.1: .mean(), .sum(), .std() and .var() of a float32 array in a compiled function are one running float32 sum: the mean of
# 51,200,000 values in [0, 1), as many as a channel of CIFAR-10 has, is 0.328 instead of 0.5. sum(x) of numexpr 2.14.2 is the same.
#
# Guess: @njit changes the speed alone; NumPy's functions are taken over with their results to a last digit or two, so pairwise
#        for sums.
# Seen: the sum cannot pass 16,777,216 times its addends, and is off long before: of 4,194,304 numbers around 100.5 the mean is 97.9,
#       and the standard deviation, taken about that mean, 2.63 for 0.29. The same lines without @njit are right. So
#       a pixel mean for normalisation that was right on a sample of the images is wrong on the whole dataset, too small by a
#       third, with a standard deviation that is too large. Of bytes numba's is right, which are added as int64; numexpr adds
#       them as int32, where 51,200,000 of them have a mean of -40.
# What to do: x.astype(np.float64) first, or a float64 accumulator of one's own in the loop; sum in NumPy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 llvmlite==0.50.0 numexpr==2.14.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numba
import numexpr
import numpy as np


def measure(x):
    return x.mean(), x.std()


compiled = numba.njit(measure)


def compare(name, x):
    """Returns mean and standard deviation by NumPy in float64 and by numba, and the mean by numexpr."""
    truth = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    numpy, found = measure(x), compiled(x)
    expression = float(numexpr.evaluate('sum(x)', {'x': x})) / x.size
    print(f'{name}: mean {truth[0]:.4f}, std {truth[1]:.4f}')
    print(f'  numpy {numpy[0]:.4f}, {numpy[1]:.4f}; numba {found[0]:.4f}, {found[1]:.4f}; numexpr {expression:.4f}')
    np.testing.assert_allclose(numpy, truth, rtol=1e-4)
    return truth, found, expression


rng = np.random.default_rng(0)
pixels = rng.random(50_000 * 32 * 32, dtype=np.float32)
truth, found, expression = compare('51,200,000 values in [0, 1)', pixels)
assert found[0] == np.float32(2**24 / pixels.size) and found[1] > 1.15 * truth[1]
assert abs(expression - 2**24 / pixels.size) < 1e-6

truth, found, expression = compare('4,194,304 values around 100.5', pixels[: 2**22] + np.float32(100))
assert 97 < found[0] < 98.5 and found[1] > 8 * truth[1] and 97 < expression < 98.5

truth, found, expression = compare('51,200,000 bytes', rng.integers(0, 256, pixels.size, np.uint8))
np.testing.assert_allclose(found, truth, rtol=1e-6)
assert expression < 0
PYTHON
echo 'unchanged: numba 0.68.1 and numexpr 2.14.2 add float32 in one running sum'
