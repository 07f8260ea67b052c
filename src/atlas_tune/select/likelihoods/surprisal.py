"""Surprisal: how little the base policy expected what the expert did.

score_t = − (1/n) Σ_j log π₀(y_{t,j} | h_t, y_{t,<j}), the mean over the step's n tokens, in nats.
With all tokens it is exactly the loss that the step would carry in training.

This is ATLaS's control "highest-perplexity 30%" (arXiv 2503.02197), which *failed* there: 53.21
held-in and 22.13 held-out, against 59.90 and 38.04 for as many random steps. It is kept as that
control, not as advice. What is most surprising is often noise: a slip of the expert, a long
thought in another style. ``variant`` turns it round (``low``) or takes the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from atlas_tune.select.base import Cost, labels_of_scores
from atlas_tune.select.likelihoods.by_likelihood import (
    LikelihoodOptions,
    Likelihoods,
    readable_passages,
    reading_cost,
)
from atlas_tune.trajectory import StepLabel, Trajectory


class SurprisalOptions(LikelihoodOptions):
    """The settings of ``surprisal``."""

    variant: Literal["high", "low", "middle"] = "high"
    """``high``: the most surprising steps first; ``low``: the least; ``middle``: those whose
    surprisal is nearest to the trajectory's median, by rank."""


class SurprisalSelector(Likelihoods):
    """Scores every step by −mean log π₀ of its tokens."""

    name = "surprisal"

    def __init__(self, options: SurprisalOptions, model: str) -> None:
        """``model`` is the base policy; it is loaded when the first trajectory is labelled."""
        super().__init__(model, options.tokens, options.precision)
        self.variant = options.variant
        self.version = f"1+tokens={self.tokens},variant={self.variant},precision={self.precision}"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A score for every step that has a counted token; the others are no candidates.

        Raises:
            CannotLabel: the tokens cannot be told exactly, or the model cannot read so many.
            AtlasError: the model cannot be found or has no chat template.
        """
        surprisals: dict[int, float] = {}
        reasons: dict[int, str] = {}
        for step in self.scorer.likelihoods(trajectory):
            counted = step.counted(self.tokens)
            if not counted:
                reasons[step.step_id] = "no action could be read in this step"
                continue
            surprisals[step.step_id] = -sum(counted) / len(counted)
            reasons[step.step_id] = (
                f"surprisal {surprisals[step.step_id]:.2f} nats per token over "
                f"{tokens_in_words(len(counted), self.tokens)}"
            )
        scores = dict(surprisals)
        if self.variant == "low":
            scores = {step_id: -value for step_id, value in surprisals.items()}
        elif self.variant == "middle":
            ranks = mid_ranks(list(surprisals.values()))
            total = len(ranks)
            for step_id, rank in zip(surprisals, ranks, strict=True):
                scores[step_id] = middleness(rank, total)
                reasons[step_id] += f"; rank {rank:g} of {total} in its run"
        return labels_of_scores(trajectory, self.source, scores, reasons)

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """One reading of every trajectory."""
        return reading_cost(readable_passages(self.model, trajectories))


def mid_ranks(values: Sequence[float]) -> list[float]:
    """Per value its rank from 1 (the lowest); equal ones share the mean of their ranks.

    >>> mid_ranks([0.5, 2.0, 2.0, 9.0])
    [1.0, 2.5, 2.5, 4.0]
    """
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def middleness(rank: float, total: int) -> float:
    """1 − |2 (rank − ½) / total − 1|: 1 at the median, falling evenly to 1 / total at both ends.

    A trajectory's own ranks and not nats: what is surprising differs from task to task, and the
    budget is cut in each trajectory by itself. The two steps of a pair that lie equally far from
    the median score the same.

    >>> [middleness(rank, 5) for rank in (1, 3, 5)]
    [0.2, 1.0, 0.2]
    """
    return round(1 - abs(2 * (rank - 0.5) / total - 1), 12)


def tokens_in_words(count: int, tokens: str) -> str:
    """
    >>> tokens_in_words(1, "action")
    '1 action token'
    """
    kind = "action token" if tokens == "action" else "token"
    return f"{count} {kind}{'' if count == 1 else 's'}"
