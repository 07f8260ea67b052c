"""``combine``: several selectors at once, such as "necessary, and not known to the base policy".

The paper names mixes of criteria as future work. Scores of different selectors have different
units, so only their order within a trajectory counts. A part's *rank* of a step is its mid-rank
among the T agent steps, as a share: (r - ½) / T with r = 1 for the least critical step, the mean r
for equal ones. Scored candidates come by their score; steps that a judge names without a score
come in its order, after scored ones; steps that the part labels none are equal and last.

- ``weighted``: the score is Σ wᵢ rankᵢ; a negative weight turns a part around.
- ``lexicographic``: by the first part's rank, equal ones by the second's, and so on; the score is
  the mid-rank of that order.

A part with ``require`` also says which steps are candidates at all: those that it does not label
none and that score more than ``above``. A step that every part labels none is no candidate either.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Semaphore
from typing import Any, Literal

from pydantic import Field, model_validator

from atlas_tune.errors import UsageError
from atlas_tune.select.base import (
    Alone,
    CannotLabel,
    Cost,
    Selector,
    SelectorOptions,
    labels_of_scores,
)
from atlas_tune.select.context import Context
from atlas_tune.select.on_file import LabelsOnFile
from atlas_tune.trajectory import Kind, StepLabel, Trajectory
from atlas_tune.trajectory.canonical import canonical_json

DECIMALS = 9
"""Sums of ranks are rounded to so many, so that equal sums are equal."""

Make = Callable[[str, Mapping[str, Any] | None, Context | None], Selector]
"""Makes a selector by name, see :func:`atlas_tune.select.registry.make_selector`."""


class PartOptions(SelectorOptions):
    """One criterion of several: a selector, or labels on file."""

    selector: str | None = None
    """The selector; its labels are made anew for every trajectory."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options."""
    labels: str | None = None
    """Labels on file instead, so that none is paid for twice: ``FILE``, or ``FILE#NAME`` where
    several selectors have labelled."""
    weight: float = Field(1.0, allow_inf_nan=False)
    """Its weight; negative turns it around, 0 lets it only say which steps are candidates."""
    require: bool = False
    """Only steps that are candidates here can be selected."""
    above: float | None = Field(None, allow_inf_nan=False)
    """With ``require``: only steps with a higher score than this are candidates."""

    @model_validator(mode="after")
    def _is_one_part(self) -> PartOptions:
        if (self.selector is None) == (self.labels is None):
            raise ValueError("a part has either 'selector' or 'labels'")
        if self.labels is not None and self.options:
            raise ValueError("labels on file take no 'options'")
        if self.above is not None and not self.require:
            raise ValueError("'above' goes with 'require: true'")
        if self.selector is not None:
            # Here and not above: the registry knows this module.
            from atlas_tune.select.registry import selector_options

            selector_options(self.selector, self.options)
        return self


class CombineOptions(SelectorOptions):
    """The settings of a combination."""

    parts: tuple[PartOptions, ...] = Field(min_length=1)
    """The criteria; for ``lexicographic`` the most important first."""
    how: Literal["weighted", "lexicographic"] = "weighted"
    """Weigh their ranks, or let each decide only what those before it leave equal."""

    @model_validator(mode="after")
    def _weights_fit(self) -> CombineOptions:
        weights = [part.weight for part in self.parts]
        if self.how == "lexicographic" and any(weight != 1 for weight in weights):
            raise ValueError("weights have no part in 'lexicographic', where the order decides")
        if not any(weights):
            raise ValueError("every weight is 0, so nothing ranks the steps")
        return self


@dataclass(frozen=True, slots=True)
class Part:
    """A criterion, ready to label."""

    name: str
    """How reasons and errors call it."""
    selector: Selector
    options: PartOptions
    turn: AbstractContextManager[Any] = field(compare=False)
    """Lets as many trajectories in at once as the selector bears."""

    def is_candidate(self, label: StepLabel) -> bool:
        """Whether this part lets a step be selected."""
        above = self.options.above
        if not self.options.require:
            return True
        if label.kind is Kind.NONE or above is None:
            return label.kind is not Kind.NONE
        if label.score is None:
            raise CannotLabel(
                f"the part '{self.name}' names steps without a score, so 'above' has nothing to "
                "compare"
            )
        return label.score > above


class CombinedSelector(Alone):
    """Scores steps by what several selectors say of them."""

    name = "combine"

    def __init__(self, options: CombineOptions, context: Context, make: Make) -> None:
        """``make`` builds the parts, from the same context.

        Raises:
            UsageError: a part cannot be made; the message says which.
        """
        self.options = options
        self._parts = [
            _part(place, part, context, make) for place, part in enumerate(options.parts, start=1)
        ]
        # Each part keeps to its own limit by a semaphore, so that local ones do not hold up a
        # server that answers many questions at once.
        self.concurrency = max(part.selector.concurrency for part in self._parts)
        said = [
            [asdict(p.selector.source), p.options.weight, p.options.require, p.options.above]
            for p in self._parts
        ]
        digest = hashlib.sha256(canonical_json(said).encode("ascii")).hexdigest()
        names = "+".join(part.name for part in self._parts)
        self.version = f"1+{options.how},parts={names},sources={digest[:12]}"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """The combined scores; the reason has each part's rank and score.

        Raises:
            CannotLabel: a part cannot label the trajectory; the reason says which.
        """
        own = [step.step_id for step in trajectory.agent_steps]
        said = [(part, self._labels_of(part, trajectory)) for part in self._parts]
        ranks = [_ranks(own, labels) for _, labels in said]
        by_step = [{label.step_id: label for label in labels} for _, labels in said]
        candidates = [
            step_id
            for step_id in own
            if any(labels[step_id].kind is not Kind.NONE for labels in by_step)
            and all(
                part.is_candidate(labels[step_id])
                for part, labels in zip(self._parts, by_step, strict=True)
            )
        ]
        scores = self._scores(own, ranks)
        reasons = {
            step_id: "; ".join(
                _told(part, labels[step_id], rank[step_id])
                for part, labels, rank in zip(self._parts, by_step, ranks, strict=True)
            )
            for step_id in own
        }
        kept = {step_id: scores[step_id] for step_id in candidates}
        return labels_of_scores(trajectory, self.source, kept, reasons)

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """What all parts together take."""
        found = list(trajectories)
        return sum((part.selector.cost(found) for part in self._parts), Cost())

    def _labels_of(self, part: Part, trajectory: Trajectory) -> list[StepLabel]:
        try:
            with part.turn:
                return part.selector.label(trajectory)
        except CannotLabel as error:
            raise CannotLabel(f"the part '{part.name}' cannot label it: {error}") from error

    def _scores(self, own: Sequence[int], ranks: Sequence[dict[int, float]]) -> dict[int, float]:
        if self.options.how == "lexicographic":
            return _mid_ranks({i: tuple(rank[i] for rank in ranks) for i in own})
        weights = [part.options.weight for part in self._parts]
        return {
            i: round(sum(w * rank[i] for w, rank in zip(weights, ranks, strict=True)), DECIMALS)
            for i in own
        }


def located_parts(
    options: Mapping[str, Any],
    base: Path,
    located: Callable[[str, Mapping[str, Any], Path], tuple[str, dict[str, Any]]],
) -> dict[str, Any]:
    """Options whose file paths are made relative to the working directory.

    Args:
        options: of a combination, checked before.
        base: the directory that the paths are relative to.
        located: does the same for a part's selector and its options.
    """
    parts = []
    for part in options["parts"]:
        part = dict(part)
        if part.get("selector") is not None:
            part["selector"], part["options"] = located(
                part["selector"], part.get("options", {}), base
            )
        if part.get("labels") is not None:
            part["labels"] = str(base / Path(part["labels"]).expanduser())
        parts.append(part)
    return {**options, "parts": parts}


def _part(place: int, options: PartOptions, context: Context, make: Make) -> Part:
    try:
        if options.labels is not None:
            selector: Selector = LabelsOnFile(options.labels)
        else:
            selector = make(str(options.selector), options.options, context)
    except UsageError as error:
        raise UsageError(f"Part {place} of the selector 'combine': {error}") from error
    return Part(selector.name, selector, options, Semaphore(selector.concurrency))


def _ranks(own: Sequence[int], labels: Sequence[StepLabel]) -> dict[int, float]:
    """A part's rank of each step, in (0, 1); higher is more critical."""
    keys: dict[int, tuple[float, ...]] = dict.fromkeys(own, (0.0,))
    for place, label in enumerate(labels):
        if label.kind is Kind.NONE:
            continue
        named = label.score is None
        keys[label.step_id] = (1.0, -place) if named else (2.0, label.score or 0.0)
    return _mid_ranks(keys)


def _mid_ranks(keys: Mapping[int, tuple[float, ...]]) -> dict[int, float]:
    """The mid-ranks of steps by their keys, as shares (r - ½) / T.

    >>> _mid_ranks({2: (5.0,), 3: (1.0,), 4: (1.0,), 5: (9.0,)})
    {2: 0.625, 3: 0.25, 4: 0.25, 5: 0.875}
    """
    below, share_of = 0, {}
    for key, count in sorted(Counter(keys.values()).items()):
        share_of[key] = (below + count / 2) / len(keys)
        below += count
    return {step_id: share_of[key] for step_id, key in keys.items()}


def _told(part: Part, label: StepLabel, rank: float) -> str:
    if label.kind is Kind.NONE:
        return f"{part.name}: none"
    score = "" if label.score is None else f", score {label.score:.3g}"
    return f"{part.name}: rank {rank:.2f}{score}"
