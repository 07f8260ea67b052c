"""``random`` with ``match``: random steps that sit where critical ones do, or are as long.

Critical steps are longer and earlier than others, so a plain random control differs from them in
more than criticality. This one keeps what it is told to keep and draws the rest: always each
trajectory's number of steps, and besides

- ``position``: how many steps lie in each of ``bins`` equal parts of their trajectories, exactly;
- ``tokens``: the total of supervised tokens, within ``tolerance``.

Both hold for each environment (``tokens``: as nearly as its steps allow), and so for the whole
set. The histogram is matched over all trajectories and not within each: a bin of one trajectory
often holds a single step, and drawing within it would give the other arm's step back. A drawn step
may still be one that the other arm took, by chance; how often is told, and stands in the label.

One draw is one draw. Three arms with the seeds 0, 1 and 2 show how much it matters.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator

from atlas_tune.errors import UsageError
from atlas_tune.progress import say
from atlas_tune.select.base import Alone, CannotLabel, Selector, SelectorOptions
from atlas_tune.select.context import Context
from atlas_tune.select.controls.controls import (
    RandomSteps,
    by_id,
    draws_of,
    fingerprint,
    selection_of,
)
from atlas_tune.select.controls.positions import position_bin
from atlas_tune.select.controls.step_tokens import Characters, ModelTokens
from atlas_tune.trajectory import Kind, Selection, StepLabel, Trajectory

HARDLY = 0.75
"""Of more common steps than this share it is told that they leave hardly a control."""


class RandomOptions(SelectorOptions):
    """The settings of a random control."""

    seed: int = 0
    """The draw; the same seed gives the same steps on every machine."""
    match: tuple[Literal["number", "position", "tokens"], ...] = Field(("number",), min_length=1)
    """What of the other arm is kept, one or several: ``number`` of steps of each trajectory (always
    kept), ``position`` in them, ``tokens`` supervised in all."""
    bins: int = Field(10, ge=1, le=1000)
    """How many equal parts of a trajectory count as positions."""
    tolerance: float = Field(0.02, ge=0)
    """How far the total of supervised tokens may be from the other arm's, as a share of it."""

    @field_validator("match", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @property
    def needs_other(self) -> bool:
        """Whether there must be another arm to match."""
        return self.match != ("number",)


def random_control(options: RandomOptions, context: Context) -> Selector:
    """The random control that the options ask for.

    Raises:
        UsageError: it is to match another arm, and the run gives none or no trajectories.
    """
    wanted = frozenset(options.match) - {"number"}
    if not wanted:
        return RandomSteps(options.seed, context.other)
    if context.other is None:
        raise UsageError(
            f"The selector 'random' matches {' and '.join(sorted(wanted))} of another arm, and no "
            "other arm is given: select with that arm first and name it."
        )
    if not context.trajectories:
        raise UsageError(
            "The selector 'random' matches another arm over all trajectories of a run and got "
            "none: set trajectories in its context."
        )
    tokens = None
    if "tokens" in wanted:
        tokens = Characters() if context.model is None else ModelTokens(context.model)
    return MatchedRandomSteps(
        context.other,
        context.trajectories,
        seed=options.seed,
        bins=options.bins if "position" in wanted else None,
        tokens=tokens,
        tolerance=options.tolerance,
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """A draw over all trajectories, and how near it comes to the other arm."""

    steps: dict[str, frozenset[int]] = field(default_factory=dict)
    """The drawn steps by trajectory id."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Trajectories that have no part in it, with the reason."""
    common: int = 0
    """How many of the drawn steps the other arm took too."""
    tokens: int = 0
    """Supervised tokens of the drawn steps; 0 where they are not counted."""
    wanted_tokens: int = 0
    """Supervised tokens of the other arm's steps."""

    @property
    def difference(self) -> float:
        """How many more tokens the draw has, as a share of the other arm's."""
        return (self.tokens - self.wanted_tokens) / max(1, self.wanted_tokens)


class MatchedRandomSteps(Alone):
    """Steps drawn at random that match another arm in position, in tokens, or in both."""

    name = "random"
    share: float | None = 1.0

    def __init__(
        self,
        other: Iterable[Selection],
        trajectories: Sequence[Trajectory],
        *,
        seed: int = 0,
        bins: int | None = None,
        tokens: Characters | ModelTokens | None = None,
        tolerance: float = 0.02,
    ) -> None:
        """``bins`` is None where positions are free, ``tokens`` where lengths are."""
        self.seed = seed
        self.bins = bins
        self.tolerance = tolerance
        self._count = tokens
        self._other = by_id(other)
        self._runs = {t.trajectory_id: t for t in trajectories if t.trajectory_id in self._other}
        self._drawn: Drawn | None = None
        matched = ([f"bins={bins}"] if bins else []) + ([f"tokens={tokens.name}"] if tokens else [])
        runs = hashlib.sha256("\n".join(sorted(self._runs)).encode()).hexdigest()[:12]
        self.version = (
            f"1+seed={seed},{','.join(matched)},other={fingerprint(self._other.values())},"
            f"runs={runs}"
        )

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """The drawn steps as candidates, with their draws; all others are none.

        Raises:
            CannotLabel: the other arm has no selection of this trajectory, or its tokens cannot
                be told.
            UsageError: no draw has tokens within the tolerance; the message says how near it came.
        """
        selection = selection_of(self._other, trajectory)
        if self._drawn is None:
            self._drawn = self._draw()
        trajectory_id = trajectory.trajectory_id
        if trajectory_id in self._drawn.left_out:
            raise CannotLabel(self._drawn.left_out[trajectory_id])
        if trajectory_id not in self._drawn.steps:
            raise CannotLabel("this trajectory is none of those that the draw was made over")
        own = [step.step_id for step in trajectory.agent_steps]
        draws = draws_of(self.name, self.seed, trajectory_id, own)
        drawn = self._drawn.steps[trajectory_id]
        return [
            StepLabel(
                trajectory_id,
                step_id,
                None if step_id in drawn else Kind.NONE,
                self.source,
                draws[step_id],
                reason="selected by the other arm too"
                if step_id in drawn and step_id in selection.step_ids
                else None,
            )
            for step_id in own
        ]

    def _draw(self) -> Drawn:
        """The draw over all trajectories, told in one line."""
        counts: dict[str, Mapping[int, int]] = {}
        left_out: dict[str, str] = {}
        groups: dict[str, list[Trajectory]] = defaultdict(list)
        # By id, so that the order in which trajectories come decides nothing.
        for trajectory_id in sorted(self._runs):
            run = self._runs[trajectory_id]
            try:
                counts[trajectory_id] = self._tokens_of(run)
            except CannotLabel as error:
                left_out[trajectory_id] = str(error)
                continue
            groups[run.environment or ""].append(run)
        steps: dict[str, frozenset[int]] = {}
        for runs in groups.values():
            steps |= self._draw_from(runs, counts)
        other = {key: set(self._other[key].step_ids) for key in steps}
        drawn = Drawn(
            steps,
            left_out,
            sum(len(found & other[key]) for key, found in steps.items()),
            sum(counts[key][i] for key, found in steps.items() for i in found),
            sum(counts[key][i] for key, found in other.items() for i in found),
        )
        self.tell(drawn)
        return drawn

    def _tokens_of(self, run: Trajectory) -> Mapping[int, int]:
        own = {step.step_id for step in run.agent_steps}
        strays = sorted(set(self._other[run.trajectory_id].step_ids) - own)
        if strays:
            raise CannotLabel(
                f"the other arm's selection names step {strays[0]}, which is not one of the "
                "agent's own steps"
            )
        # Tokenising is the slow part, and where nothing is drawn no length matters.
        if self._count is None or not self._other[run.trajectory_id].step_ids:
            return dict.fromkeys(own, 0)
        return self._count(run)

    def _draw_from(
        self, runs: Sequence[Trajectory], counts: Mapping[str, Mapping[int, int]]
    ) -> dict[str, frozenset[int]]:
        """The draw over the trajectories of one environment."""
        # Here and not above: reading a recipe needs no arrays.
        import numpy as np

        from atlas_tune.select.controls.matched_draw import Pool, draw, lot

        rows: list[tuple[int, int, int, int, int, bool]] = []
        for place, run in enumerate(runs):
            own = [step.step_id for step in run.agent_steps]
            draws = draws_of(self.name, self.seed, run.trajectory_id, own)
            taken = set(self._other[run.trajectory_id].step_ids)
            tokens = counts[run.trajectory_id]
            for index, i in enumerate(own):
                part = position_bin(index, len(own), self.bins or 1)
                rows.append((place, i, part, lot(draws[i]), tokens[i], i in taken))
        trajectory_S, step_S, bin_S, lot_S, tokens_S, taken_S = np.array(rows, np.int64).T
        numbers_N = np.bincount(trajectory_S, weights=taken_S, minlength=len(runs))
        pool = Pool(trajectory_S, bin_S, lot_S, tokens_S, numbers_N.astype(np.int64))
        histogram_B = None
        if self.bins is not None:
            histogram_B = np.bincount(bin_S[taken_S == 1], minlength=self.bins).astype(np.int64)
        wanted = None if self._count is None else int(tokens_S[taken_S == 1].sum())
        drawn_S = draw(pool, histogram_B, wanted)
        found: dict[str, set[int]] = {run.trajectory_id: set() for run in runs}
        for place, step_id in zip(trajectory_S[drawn_S], step_S[drawn_S], strict=True):
            found[runs[place].trajectory_id].add(int(step_id))
        return {key: frozenset(step_ids) for key, step_ids in found.items()}

    def tell(self, drawn: Drawn) -> None:
        """Say how near the draw comes.

        Raises:
            UsageError: its tokens are farther off than the tolerance.
        """
        number = sum(map(len, drawn.steps.values()))
        told = (
            f"  random, seed {self.seed}: {number} steps drawn, "
            f"{drawn.common / max(1, number):.0%} of them in the other arm too"
        )
        if drawn.common > HARDLY * number:
            told += " (so little is left to chance that this is hardly a control)"
        if self._count is None:
            return say(told)
        reached = (
            f"{drawn.tokens} {self._count.unit} against {drawn.wanted_tokens} "
            f"({drawn.difference:+.2%})"
        )
        if abs(drawn.difference) > self.tolerance:
            raise UsageError(
                f"The selector 'random' finds no draw whose tokens are within "
                f"{self.tolerance:.3g} of the other arm's: the nearest has {reached}. Give it more "
                "trajectories to draw from, or set its option 'tolerance'."
            )
        say(f"{told}; {reached}")
