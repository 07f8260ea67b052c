"""The habits of scripted experts: small, seeded and stated imperfections.

An optimal expert makes every step necessary, so selection would have nothing to select. Real
experts look around, err and mend, and take detours. Ours do the same with the probabilities
written here, and :func:`seeded` makes every draw repeatable on any machine.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Habits:
    """The probability of each habit, per occasion; what an occasion is, each expert documents.

    All zero gives the optimal expert.
    """

    look: float = 0.3
    """Looking where nothing new need be learnt: checking the inventory, looking around."""
    slip: float = 0.15
    """A mistaken action, which the environment refuses or wastes, followed by its repair."""
    detour: float = 0.15
    """A harmless action that the task does not need."""

    def __post_init__(self) -> None:
        for name in ("look", "slip", "detour"):
            probability = getattr(self, name)
            if not 0 <= probability <= 1:
                raise ValueError(f"Habits.{name} is a probability, so 0 to 1, not {probability}.")


def seeded(*parts: object) -> random.Random:
    """A random generator that depends on ``parts`` alone, not on the process or PYTHONHASHSEED.

    >>> seeded("task", 1).random() == seeded("task", 1).random()
    True
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
