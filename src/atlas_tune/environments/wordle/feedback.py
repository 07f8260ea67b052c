"""The feedback on a guess, by AgentGym's rule, which is not that of the newspaper's game."""

from __future__ import annotations

WORD = 5
"""Letters in a word."""


def marks(guess: str, secret: str) -> str:
    """One mark per letter: ``g`` in its place, ``y`` elsewhere in the secret, ``b`` nowhere in it.

    A letter is ``y`` however often it was accounted for already: AgentGym does not count letters
    (Xi et al., arXiv 2406.04151). A guess may so show more of a letter than the secret has.

    Raises:
        ValueError: the guess and the secret are not of one length.

    >>> marks("geese", "crane")
    'byybg'
    """
    return "".join(
        "g" if letter == hidden else "y" if letter in secret else "b"
        for letter, hidden in zip(guess, secret, strict=True)
    )


def spaced(letters: str) -> str:
    """Letters with spaces between them, as AgentGym writes guesses and feedback.

    >>> spaced("storm")
    's t o r m'
    """
    return " ".join(letters)
