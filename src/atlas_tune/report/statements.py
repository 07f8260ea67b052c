"""What the run says of its main arm: one sentence for each comparison, in the verdict's words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from atlas_tune.report import wording
from atlas_tune.report.results import Comparison, Results


@dataclass(frozen=True, slots=True)
class Statement:
    """One comparison, told."""

    comparison: Comparison
    words: str
    """The finding's words, less the cautions that all statements share."""

    @property
    def title(self) -> str:
        """The two arms: ``“critical” against “all”``."""
        one, other = self.comparison.arm, self.comparison.against
        return f"{wording.quoted(one)} against {wording.quoted(other)}"

    @property
    def sentence(self) -> str:
        """The whole in plain text."""
        return f"{self.title} on {self.comparison.environment}: {self.words}"


@dataclass(frozen=True, slots=True)
class Statements:
    """All that the run says of its main arm."""

    made: tuple[Statement, ...]
    cautions: tuple[str, ...]
    """What holds for every one of them."""


def statements(results: Results) -> Statements:
    """The comparisons of the main arm with every arm it is held against, by environment.

    A pair that was compared both ways is told once, from the main arm's side.
    """
    found = main_comparisons(results)
    told = [_sentences(comparison.words) for comparison in found]
    cautions = _shared([sentences[1:] for sentences in told]) if len(told) > 1 else ()
    return Statements(
        tuple(
            Statement(comparison, " ".join(s for s in sentences if s not in cautions))
            for comparison, sentences in zip(found, told, strict=True)
        ),
        cautions,
    )


def main_comparisons(results: Results) -> list[Comparison]:
    """The comparisons that the main arm is in, its own before those of others with it."""
    main = results.main_arm
    if main is None:
        return []
    own = [c for c in results.comparisons if c.arm == main.name]
    pairs = {(c.against, c.environment) for c in own}
    others = [
        c
        for c in results.comparisons
        if c.against == main.name and (c.arm, c.environment) not in pairs
    ]
    return own + others


def _sentences(words: str) -> list[str]:
    """The sentences of a finding.

    >>> _sentences("Cannot tell (p = 0.345, t test). One seed: no more.")
    ['Cannot tell (p = 0.345, t test).', 'One seed: no more.']
    """
    return re.split(r"(?<=\.) (?=[A-Z0-9])", words)


def _shared(told: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The sentences that stand in all of several texts, in their order."""
    return tuple(s for s in dict.fromkeys(told[0]) if all(s in sentences for sentences in told))
