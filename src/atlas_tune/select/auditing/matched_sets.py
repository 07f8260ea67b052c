"""Draws of random sets that match a selection in position and in tokens.

Critical steps are longer and earlier than others, and a step's position alone tells much of what a
policy reaches after it. So no figure of a selection stands without the same figure of sets that
differ from it in *which* steps they hold and in nothing else that is known to matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from atlas_tune.agents.streams import hashed
from atlas_tune.select.auditing.taken import Taken
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.controls.matched import Drawn, MatchedRandomSteps
from atlas_tune.select.controls.step_tokens import Characters, ModelTokens
from atlas_tune.select.labelling import Unlabelled
from atlas_tune.trajectory import Kind, Selection, Trajectory

BINS = 10
"""Positions are matched in so many equal parts of a trajectory."""


@dataclass(frozen=True, slots=True)
class Control:
    """Several draws of random steps that match one selection."""

    sets: tuple[Mapping[str, frozenset[int]], ...]
    """By draw and run, the steps drawn."""
    own: float | None
    """The share of the drawn steps that the selection takes too; where it is near 1 the control
    says nothing. None where no step is drawn."""
    tokens: float
    """How many more tokens the draws have, as a share of the selection's; the draw farthest off."""


class CountedOnce(ModelTokens):
    """A model's tokens, counted once for each run: every draw asks for them again."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._known: dict[str, dict[int, int]] = {}

    def __call__(self, trajectory: Trajectory) -> dict[int, int]:
        """The supervised tokens of each agent step; raises as its parent does."""
        key = trajectory.trajectory_id
        if key not in self._known:
            self._known[key] = super().__call__(trajectory)
        return self._known[key]


Tokens = Characters | CountedOnce


def matched_sets(
    taken: Taken, runs: Sequence[Trajectory], tokens: Tokens, count: int, seed: int
) -> Control:
    """Draw sets with the selection's number of steps in each run and its histogram of positions.

    The tokens of a draw come as near to the selection's as its steps allow: see
    :mod:`atlas_tune.select.controls.matched`. A draw that is off by more than an arm of a
    comparison may be is kept, and how far it is off is told.

    Args:
        taken: the selection.
        runs: all runs over which is drawn; see :func:`countable`.
        tokens: counts them.
        count: how many draws.
        seed: of the draws, which are not those of an arm ``random`` with the same seed: such an
            arm would be its own control.

    Raises:
        AtlasError: the model has no tokenizer to count with.
    """
    other = [
        Selection(key, tuple(sorted(taken.steps[key])), taken.name)
        for key in sorted(run.trajectory_id for run in runs)
    ]
    counts = {run.trajectory_id: tokens(run) for run in runs}
    wanted = _total(counts, {chosen.trajectory_id: chosen.step_ids for chosen in other})
    sets = []
    for number in range(count):
        control = _Silent(
            other, runs, seed=hashed("matched set", seed, number), bins=BINS, tokens=tokens
        )
        sets.append(
            {
                run.trajectory_id: frozenset(
                    label.step_id for label in control.label(run) if label.kind is not Kind.NONE
                )
                for run in runs
            }
        )
    shares = [
        fmean(i in taken.steps[key] for key, steps in drawn.items() for i in steps)
        for drawn in sets
        if any(drawn.values())
    ]
    off = [(_total(counts, drawn) - wanted) / max(1, wanted) for drawn in sets]
    return Control(tuple(sets), fmean(shares) if shares else None, max(off, key=abs, default=0.0))


class _Silent(MatchedRandomSteps):
    """The control of a comparison, but told in the results and not draw by draw.

    Nor is a draw refused whose tokens are too far off: how far they are is one of the results.
    """

    def tell(self, drawn: Drawn) -> None:
        pass


def countable(
    runs: Sequence[Trajectory], tokens: Tokens
) -> tuple[list[Trajectory], list[Unlabelled]]:
    """The runs whose tokens can be counted, and why those of the others cannot.

    Raises:
        AtlasError: the model has no tokenizer to count with.
    """
    good, bad = [], []
    for run in runs:
        try:
            tokens(run)
        except CannotLabel as error:
            bad.append(Unlabelled(run.trajectory_id, str(error)))
        else:
            good.append(run)
    return good, bad


def _total(
    counts: Mapping[str, Mapping[int, int]], steps: Mapping[str, frozenset[int] | tuple[int, ...]]
) -> int:
    return sum(counts[key][i] for key, ids in steps.items() for i in ids)
