"""What raters say of steps, brought side by side.

A rater is a labels sidecar or a selection file. A label rates the one step it names. A selection
names the steps that it took and so rates every step of its trajectory, but it does not say which
those are: the runs do, or the labels of another rater.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.trajectory import (
    Kind,
    LabelSource,
    Selection,
    StepLabel,
    Trajectory,
    standing,
    with_corrections,
)
from atlas_tune.trajectory.checks import kind_of_file
from atlas_tune.trajectory.store import read_labels, read_selections

CRITICAL = "critical"
"""A critical step to which nobody gave one of the paper's four kinds."""
NONE = Kind.NONE.value
CATEGORIES = (*(kind.value for kind in Kind if kind is not Kind.NONE), CRITICAL, NONE)
"""What a step can be called; all but the last are critical."""


Row = tuple[str | None, ...]
"""What each rater calls one step; None where it says nothing."""


@dataclass(frozen=True, slots=True)
class Rater:
    """What one file says: by trajectory and step, one of :data:`CATEGORIES`.

    ``takes_part`` is true of a selection: whatever it does not name in its trajectories is
    uncritical. A labels sidecar says nothing of a step without a label.
    """

    name: str
    said: Mapping[str, Mapping[int, str]]
    takes_part: bool = False
    scored: bool = False
    """Whether a threshold can cut some of it."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Steps with what each rater calls them, and what could not be compared."""

    raters: tuple[str, ...]
    steps: Mapping[str, Mapping[int, Row]]
    """By trajectory and step, in the order of their ids; None where a rater says nothing."""
    environments: Mapping[str, str | None]
    """By trajectory; empty without runs."""
    without: tuple[int, ...]
    """Of each rater: how many trajectories of the runs, or of the others, it does not rate."""
    alone: int
    """Trajectories that fewer than two raters rate."""
    steps_unknown: int
    """Trajectories that only selections rate, where no runs tell what steps they have."""
    not_in_runs: int
    """Trajectories that some rater rates and the runs do not hold."""
    steps_unrated: int
    """Steps of the compared trajectories that fewer than two raters rate."""


def read_rater(address: str, threshold: float | None = None) -> Rater:
    """The rater of a file, or of one source of a labels sidecar as ``FILE#NAME[@VERSION]``.

    A labelled step is critical unless its kind is ``none``. With a threshold, a step that has a
    score and no kind is critical only where the score is larger.

    Raises:
        AtlasError: there is no such file, or a line of it is bad.
        UsageError: it holds neither labels nor selections; the sidecar holds several sources and
            none is named, or not the one that is named.
    """
    path, wanted = Path(address), None
    if not path.is_file() and "#" in address:
        file, _, wanted = address.rpartition("#")
        path = Path(file)
    held = kind_of_file(path)
    if held == "selections":
        if wanted is not None:
            raise UsageError(f"{path} is a selection file, which has no source '{wanted}'.")
        return of_selections(address, read_selections(path))
    if held == "labels":
        return of_labels(address, _of_one_source(path, list(read_labels(path)), wanted), threshold)
    raise UsageError(
        f"{path} holds neither labels nor selections: name a labels sidecar or a selection file, "
        "as atlas-tune select writes them."
    )


def of_selections(name: str, selections: Mapping[str, Selection]) -> Rater:
    """A rater that took these steps and left the others of the same trajectories."""
    said = {key: dict.fromkeys(chosen.step_ids, CRITICAL) for key, chosen in selections.items()}
    return Rater(name, said, takes_part=True)


def of_labels(name: str, labels: Iterable[StepLabel], threshold: float | None = None) -> Rater:
    """A rater that says what its standing labels say; see :func:`read_rater` for the threshold."""
    by_trajectory = standing(labels)
    said = {
        trajectory_id: {label.step_id: _category(label, threshold) for label in found}
        for trajectory_id, found in by_trajectory.items()
    }
    scored = any(_is_bare_score(label) for found in by_trajectory.values() for label in found)
    return Rater(name, said, scored=scored)


def with_kinds(rater: Rater, labels: Rater) -> Rater:
    """The same rater, its critical steps with the kinds that labels give them.

    Raises:
        UsageError: the labels give a kind to none of them.
    """
    said = {
        key: {
            step_id: _kind_in(labels, key, step_id) if category == CRITICAL else category
            for step_id, category in steps.items()
        }
        for key, steps in rater.said.items()
    }
    if not any(c not in (CRITICAL, NONE) for steps in said.values() for c in steps.values()):
        raise UsageError(f"{labels.name} gives no kind to any step that {rater.name} selects.")
    return replace(rater, said=said)


def _kind_in(labels: Rater, key: str, step_id: int) -> str:
    said = labels.said.get(key, {}).get(step_id, CRITICAL)
    return CRITICAL if said == NONE else said


def _is_bare_score(label: StepLabel) -> bool:
    return label.kind is None and label.score is not None


def _category(label: StepLabel, threshold: float | None) -> str:
    if label.kind is not None:
        return label.kind.value
    if threshold is not None and label.score is not None and label.score <= threshold:
        return NONE
    return CRITICAL


def _of_one_source(path: Path, labels: list[StepLabel], wanted: str | None) -> list[StepLabel]:
    """The labels of one source, and the corrections of those labels by whomever."""
    # Who only corrects is no source of its own.
    first = Counter(label.source for label in labels if label.supersedes is None)
    sources: Counter[str] = Counter()
    for source, count in first.items():
        sources[source_name(source)] += count
    kept = {source_name(source) for source in first if wanted in (None, *_names(source))}
    if len(kept) != 1:
        told = ", ".join(f"{name} ({count:,} labels)" for name, count in sorted(sources.items()))
        asked = "several sources" if wanted is None else f"{len(kept)} sources '{wanted}'"
        raise UsageError(
            f"{path} holds {asked}: {told or 'no label'}. Name one, as {path}#NAME@VERSION."
        )
    return with_corrections(labels, lambda source: source_name(source) in kept)


def _names(source: LabelSource) -> tuple[str, ...]:
    return source.name, f"{source.name}@{source.version}", source_name(source)


def source_name(source: LabelSource) -> str:
    """What a source is called where several are told apart: ``NAME@VERSION,MODEL,prompt HASH``."""
    model = f",{source.model}" if source.model else ""
    prompt = f",prompt {source.prompt_hash[:12]}" if source.prompt_hash else ""
    return f"{source.name}@{source.version}{model}{prompt}"


def compare(raters: Sequence[Rater], runs: Iterable[Trajectory] | None = None) -> Compared:
    """Bring raters side by side, step by step.

    Args:
        raters: two or more.
        runs: the trajectories they rated; without them, the steps of a trajectory are those that
            the raters name, where at least one of them is a labels sidecar.

    Raises:
        UsageError: nothing can be compared.
        AtlasError: a rater names a step that is not one of the agent's own.
    """
    own: dict[str, tuple[int, ...]] | None = None
    environments: dict[str, str | None] = {}
    if runs is not None:
        own = {}
        for run in runs:
            own[run.trajectory_id] = tuple(step.step_id for step in run.agent_steps)
            environments[run.trajectory_id] = run.environment
    rated = {key for rater in raters for key in rater.said}
    known = rated if own is None else own.keys()
    steps: dict[str, dict[int, tuple[str | None, ...]]] = {}
    alone = unknown = unrated = 0
    for key in sorted(known):
        raising = [rater for rater in raters if key in rater.said]
        if len(raising) < 2:
            alone += 1
            continue
        if own is None and all(rater.takes_part for rater in raising):
            unknown += 1
            continue
        _check_strays(key, raising, None if own is None else own[key])
        named = {step_id for rater in raising for step_id in rater.said[key]}
        step_ids = sorted(named) if own is None else own[key]
        row = {
            step_id: tuple(_said(rater, key, step_id) for rater in raters) for step_id in step_ids
        }
        steps[key] = {i: said for i, said in row.items() if len(said) - said.count(None) > 1}
        unrated += len(row) - len(steps[key])
    if unknown and not steps:
        raise UsageError(
            "A selection does not say which steps it left: name the trajectories with --runs, or "
            "compare with a labels sidecar."
        )
    if not any(steps.values()):
        names = " and ".join(rater.name for rater in raters)
        raise UsageError(
            f"No step is rated by both of {names}"
            + (" and in the runs" if own is not None else "")
            + ": they are of different trajectories or of different steps."
        )
    return Compared(
        raters=tuple(rater.name for rater in raters),
        steps={key: row for key, row in steps.items() if row},
        environments=environments,
        without=tuple(len(known - rater.said.keys()) for rater in raters),
        alone=alone,
        steps_unknown=unknown,
        not_in_runs=0 if own is None else len(rated - own.keys()),
        steps_unrated=unrated,
    )


def _said(rater: Rater, key: str, step_id: int) -> str | None:
    if key not in rater.said:
        return None
    return rater.said[key].get(step_id, NONE if rater.takes_part else None)


def _check_strays(key: str, raters: Sequence[Rater], own: tuple[int, ...] | None) -> None:
    if own is None:
        return
    for rater in raters:
        strays = rater.said[key].keys() - set(own)
        if strays:
            raise AtlasError(
                f"{rater.name} names step {min(strays)} of trajectory {key[:12]}, which is not one "
                "of the agent's own steps: it is of other runs, or was edited. See atlas-tune "
                "validate."
            )
