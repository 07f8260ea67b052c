"""Which guess tells most: the one after which the fewest words are expected to remain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from atlas_tune.environments.wordle.feedback import marks

_FEW = 60
"""Up to so many fitting words, words that do not fit are weighed too: they may separate them."""


@lru_cache(maxsize=4096)
def best_guess(fits: tuple[str, ...], accepted: tuple[str, ...], guesses: int) -> str:
    """The guess that leaves the fewest words, on average over the words that fit.

    ``fits`` are the words that may be hidden, ``accepted`` all that may be guessed, ``guesses`` how
    many are left. Of equal guesses one that may be right comes first, then by the alphabet. With
    one guess left, only a word that fits can win.

    Raises:
        ValueError: no word fits.
    """
    pool = fits if guesses == 1 or not 2 < len(fits) <= _FEW else accepted
    possible = frozenset(fits)
    return min(pool, key=lambda word: (_left_by(word, fits), word not in possible, word))


def _left_by(guess: str, fits: Sequence[str]) -> int:
    """The sum of squares of how many words share each row of marks: words expected, times all.

    The word itself leaves nothing behind once it is guessed.
    """
    sizes = Counter(marks(guess, word) for word in fits)
    return sum(size * size for size in sizes.values()) - (guess in fits)
