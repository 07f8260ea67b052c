"""What a selection takes of each trajectory, and in which order its selector would have gone on.

A selection file says which steps were taken. How its selector ranks all of them stands in the
labels beside it (``FILE.labels.jsonl``), where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atlas_tune.errors import AtlasError
from atlas_tune.select.auditing.ratings import NONE, Rater, read_rater
from atlas_tune.trajectory import (
    Kind,
    Selection,
    StepLabel,
    Trajectory,
    standing,
    with_corrections,
)
from atlas_tune.trajectory.checks import kind_of_file
from atlas_tune.trajectory.store import read_labels, read_selections

Order = tuple[frozenset[int], ...]
"""Steps, the most critical first; those of one group are tied."""

BY_LABELS = "labels"
BY_SELECTION = "selection"


@dataclass(frozen=True, slots=True)
class Taken:
    """A selection: the steps that it takes, and their labels where there are any."""

    name: str
    steps: Mapping[str, frozenset[int]]
    """By trajectory; empty where nothing of it was taken."""
    labels: Mapping[str, Sequence[StepLabel]] | None = None
    """By trajectory, those of its selector alone."""
    why_no_labels: str | None = None

    def orders(self, runs: Iterable[Trajectory]) -> tuple[str, dict[str, Order]]:
        """The order of the steps of each run, and what gave it.

        By labels where every run has some: candidates with scores, the highest first and equal
        ones tied; then those that a judge named, in its order; then, tied, all other steps.
        Else by the selection: what it took, then the rest.
        """
        runs = list(runs)
        labels = self.labels
        if labels is not None and all(run.trajectory_id in labels for run in runs):
            return BY_LABELS, {
                run.trajectory_id: order_of(_own(run), labels[run.trajectory_id]) for run in runs
            }
        return BY_SELECTION, {
            run.trajectory_id: _split(_own(run), self.steps[run.trajectory_id]) for run in runs
        }


def read_taken(address: str, name: str | None = None) -> Taken:
    """The selection of a file, or what the labels of a sidecar call critical.

    Args:
        address: a selection file, or a labels sidecar (``FILE#NAME`` for one source).
        name: what it is called; the address unless said.

    Raises:
        AtlasError: there is no such file, or a line of it is bad.
        UsageError: it holds neither labels nor selections, or labels of several sources.
    """
    name = name or address
    path = Path(address)
    if not path.is_file() or kind_of_file(path) != "selections":
        return _of_rater(name, read_rater(address))
    selections = read_selections(path)
    steps = {key: frozenset(chosen.step_ids) for key, chosen in selections.items()}
    sidecar = path.with_name(path.name + ".labels.jsonl")
    if not sidecar.is_file():
        return Taken(name, steps, None, f"there is no {sidecar.name} beside it")
    found = _of_rule(list(read_labels(sidecar)), selections.values())
    if isinstance(found, str):
        return Taken(name, steps, None, f"{sidecar.name} {found}")
    return Taken(name, steps, standing(found))


def _of_rater(name: str, rater: Rater) -> Taken:
    steps = {
        key: frozenset(step_id for step_id, said in steps.items() if said != NONE)
        for key, steps in rater.said.items()
    }
    return Taken(
        name, steps, None, "a labels sidecar is taken as a selection of its critical steps"
    )


def _of_rule(labels: list[StepLabel], selections: Iterable[Selection]) -> list[StepLabel] | str:
    """The labels that the rule of the selections names, or why it cannot be told which these are.

    A rule reads "NAME VERSION, at most 0.3 of the steps". Corrections go along.
    """
    rules = {selection.rule for selection in selections}
    sources = {
        source
        for source in {label.source for label in labels if label.supersedes is None}
        if any(rule.startswith(f"{source.name} {source.version}, ") for rule in rules)
    }
    if not sources:
        return "holds no labels of the selector that the selection names"
    if len(sources) > 1:
        return "holds labels of several sources that the selection could be of"
    return with_corrections(labels, sources.__contains__)


def order_of(step_ids: Sequence[int], labels: Iterable[StepLabel]) -> Order:
    """The order that labels give to steps, as :meth:`Taken.orders` describes it."""
    labels = list(labels)
    candidates = [label for label in labels if label.kind is not Kind.NONE]
    by_score: dict[float, set[int]] = {}
    for label in candidates:
        if label.score is not None:
            by_score.setdefault(label.score, set()).add(label.step_id)
    named = [{label.step_id} for label in candidates if label.score is None]
    groups: list[frozenset[int]] = []
    left = set(step_ids)
    for group in [*(by_score[score] for score in sorted(by_score, reverse=True)), *named]:
        groups.append(frozenset(group & left))
        left -= group
    groups.append(frozenset(left))
    return tuple(group for group in groups if group)


def _split(step_ids: Sequence[int], taken: frozenset[int]) -> Order:
    rest = frozenset(step_ids) - taken
    return tuple(group for group in (taken, rest) if group)


def _own(run: Trajectory) -> tuple[int, ...]:
    return tuple(step.step_id for step in run.agent_steps)


def check_steps_exist(taken: Iterable[Taken], runs: Iterable[Trajectory]) -> None:
    """Refuse selections of steps that a run does not have.

    Raises:
        AtlasError: a selection names a step that is not one of the agent's own.
    """
    known = {run.trajectory_id: set(_own(run)) for run in runs}
    for one in taken:
        for key, steps in one.steps.items():
            strays = steps - known[key] if key in known else ()
            if strays:
                raise AtlasError(
                    f"{one.name} names step {min(strays)} of trajectory {key[:12]}, which is not "
                    "one of the agent's own steps: it is of other runs, or was edited. See "
                    "atlas-tune validate."
                )
