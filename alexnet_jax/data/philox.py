"""Draws for many records at once the very numbers that NumPy's `Generator(Philox)` draws for one after another.

NumPy makes a generator for each record in 13 to 24 us of Python; the same numbers for a whole batch, by arithmetic on
arrays, take 3 us an image. What is drawn is NumPy's in every bit (tests/data/test_philox.py), so no batch of any run
depends on which of the two has drawn it.
"""

import functools

import numpy as np

# Philox4x64-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3 and table 2.
_ROUNDS = 10
_MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)
_WEYL = np.array([0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B], np.uint64)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_BLOCKS = 2  # of four words each: a record takes at most three halves for integers and three words for normals
_MANTISSA = 52  # bits of a normal's magnitude
_MARGIN = 2**12  # units of the last place in which a layer's edge, computed from the widths, may be wrong


def draw_words(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Computes the first eight words of `Philox(key=keys[i], counter=[0, 0, 0, counters[i]])`: uint64 (8, n).

    Args:
      keys: uint64 (n, 2).
      counters: uint64 (n,), the counter's highest word.
    """
    # Words 0 and 2 of the counter are multiplied, 1 and 3 are mixed in: (2, blocks, n) each. NumPy counts first, then
    # encrypts: the first block is 1's.
    blocks = np.arange(1, _BLOCKS + 1, dtype=np.uint64)[:, None]
    even = np.zeros((2, _BLOCKS, len(counters)), np.uint64)
    odd = np.zeros_like(even)
    even[0], odd[1] = blocks, counters
    key = keys.T[:, None, :].copy()
    for _ in range(_ROUNDS):
        high, low = _multiply(even, _MULTIPLIERS[:, None, None])
        even, odd = high[::-1] ^ odd ^ key, low[::-1]
        key += _WEYL[:, None, None]
    return np.stack([even[0], odd[0], even[1], odd[1]], axis=1).reshape(4 * _BLOCKS, -1)


def _multiply(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the high and the low words of the products of 64 x 64 bits."""
    a0, a1, b0, b1 = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    low, cross, other = a0 * b0, a1 * b0, a0 * b1
    middle = (low >> _HALF) + (cross & _LOW) + other  # below 2**64: (2**32 - 1)**2 + 2 * (2**32 - 1)
    return a1 * b1 + (cross >> _HALF) + (middle >> _HALF), a * b


class Words:
    """The words of n streams, taken in turn as NumPy's Generator takes them.

    `sure` (n,) tells of which streams all that was taken so far is certain: of the others NumPy may have thrown a word
    away, which is seldom, and they are to be drawn by itself.
    """

    def __init__(self, words: np.ndarray) -> None:
        """Takes uint64 (8, n) of `draw_words`."""
        self._words, self._next, self._upper = words, 0, False
        self.sure = np.ones(words.shape[1], bool)

    def integers(self, high: int) -> np.ndarray:
        """Takes what `Generator.integers(high)` does, `high` at most 2**32: int64 (n,), 0 <= number < high.

        Each is the upper half of `high` times 32 random bits (Lemire 2019, "Fast random integer generation in an
        interval", section 4), which come lower half of a word first; nothing is taken where there is but one number.
        """
        if high == 1:
            return np.zeros(len(self.sure), np.int64)
        word = self._words[self._next]
        half = word >> _HALF if self._upper else word & _LOW
        self._next, self._upper = self._next + self._upper, not self._upper
        product = half * np.uint64(high)
        if high & (high - 1):  # of a power of two none is thrown away
            self.sure &= (product & _LOW) >= high
        return (product >> _HALF).astype(np.int64)

    def normals(self, count: int) -> np.ndarray:
        """Takes what `Generator.standard_normal(count)` does: float64 (n, count).

        By the ziggurat (Marsaglia and Tsang 2000): a word is the number of a layer, a sign and a magnitude, which
        counts if it lies within the next layer too, as 98.8 % do.
        """
        widths, inside = get_layers()
        start = self._next + self._upper  # a word of which a half was taken is over
        words = self._words[start : start + count]
        self._next, self._upper = start + count, False
        layers = (words & np.uint64(0xFF)).astype(np.intp)
        magnitude = (words >> np.uint64(9)) & np.uint64(2**_MANTISSA - 1)
        self.sure &= (magnitude < inside[layers]).all(axis=0)
        numbers = magnitude.astype(np.float64) * widths[layers]
        return np.where(words & np.uint64(0x100), -numbers, numbers).T


@functools.cache
def get_layers() -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 (256,) and uint64 (256,): the ziggurat's widths of one unit, and magnitudes certainly inside.

    The widths are asked of NumPy, one layer after another: a normal whose word is known is its magnitude times the
    width. Layer 1 is the top, of which nothing lies within the next; layer 0 is the base with the tail.
    """
    magnitude = 2.0**32  # small enough for every layer to give it as it is
    bits = np.random.Philox(0)
    random, state = np.random.Generator(bits), bits.state
    widths = np.empty(256)
    for layer in range(256):
        # In the top the next word decides, and lets pass what is so near the middle. A place 0 NumPy 2.5 refuses.
        state['buffer'], state['buffer_pos'] = np.full(4, (int(magnitude) << 9) | layer, np.uint64), 1
        bits.state = state
        widths[layer] = random.standard_normal() / magnitude
    inside = np.zeros(256)
    inside[2:] = widths[1:-1] / widths[2:]
    inside[0] = widths[-1] / widths[0]
    return widths, (inside * 2**_MANTISSA - _MARGIN).clip(min=0).astype(np.uint64)
