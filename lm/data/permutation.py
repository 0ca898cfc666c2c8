"""A shuffled order that takes no memory: where each of n things goes is computed by itself.

order = Permutation(10**12, seed=7)
order[np.arange(3)]                     # (3,) int64: different numbers below 10**12
"""

import math

import numpy as np

ROUNDS = 8


class Permutation:
    """A permutation of the numbers below n, drawn by a seed.

    A Feistel network of two numbers below about the root of n, gone through again where it leads
    to n or beyond (Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains). Its function is
    the finalizer of SplitMix64 (Steele et al. 2014).
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        n_left = math.isqrt(max(0, n - 1)) + 1
        self._n_left = np.uint64(n_left)
        self._n_right = np.uint64(max(1, -(-n // n_left)))
        random = np.random.default_rng(seed)
        self._keys = random.integers(1 << 64, size=ROUNDS, dtype=np.uint64)

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        """What stands at these places (m,), each below n: int64 (m,)."""
        found = self._mapped(numbers.astype(np.uint64))
        while (is_beyond := found >= self.n).any():
            found[is_beyond] = self._mapped(found[is_beyond])
        return found.astype(np.int64)

    def _mapped(self, numbers: np.ndarray) -> np.ndarray:
        left, right = np.divmod(numbers, self._n_right)
        for i, key in enumerate(self._keys):
            if i % 2:
                right = (right + _mixed(left + key) % self._n_right) % self._n_right
            else:
                left = (left + _mixed(right + key) % self._n_left) % self._n_left
        return left * self._n_right + right


def _mixed(numbers: np.ndarray) -> np.ndarray:
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
