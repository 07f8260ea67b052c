"""How an observation of a replay differs from the recorded one, by cause.

Version 1.0.2 listed what a place holds in an order that changes from look to look; later ones sort
it. Such texts say the same, but they are not the same, so they are counted apart.
"""

from __future__ import annotations

import re
from enum import StrEnum

_DEGREES = re.compile(r"-?\d+(?= degrees)")
_PART = re.compile(r"[^\s,.()]+")


class Agreement(StrEnum):
    """What an observation has in common with the recorded one, the most first."""

    SAME = "same"
    """The same text, white space aside."""
    ORDER = "order"
    """The same words in another order, as in a list."""
    TEMPERATURE = "temperature"
    """The same words in any order, but for readings of a thermometer."""
    OTHER = "other"
    """Other words."""


def agreement(recorded: str, replayed: str) -> Agreement:
    """Compare two observations.

    >>> str(agreement("an axe, a cup, at 10 degrees", "a cup, an axe, at 10 degrees"))
    'order'
    >>> str(agreement("an axe, at 10 degrees", "an axe, at 11 degrees"))
    'temperature'
    """
    if " ".join(replayed.split()) == " ".join(recorded.split()):
        return Agreement.SAME
    if _bag(replayed) == _bag(recorded):
        return Agreement.ORDER
    if _bag(_DEGREES.sub("", replayed)) == _bag(_DEGREES.sub("", recorded)):
        return Agreement.TEMPERATURE
    return Agreement.OTHER


def _bag(text: str) -> list[str]:
    """The words in the order of the alphabet: equal for texts that order their parts otherwise."""
    return sorted(_PART.findall(text))
