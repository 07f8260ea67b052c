"""Step labels: what a selector or a person says of one step, in an append-only sidecar.

Labels stand beside trajectories, never inside them, and nothing is ever rewritten: a correction
is a new line that names the one it ``supersedes``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from atlas_tune.trajectory.canonical import canonical_json
from atlas_tune.trajectory.fields import Number, an_object, typed
from atlas_tune.trajectory.model import InvalidTrajectory


class Kind(StrEnum):
    """The paper's four kinds of critical step (section 3); NONE for one judged uncritical."""

    PLAN_CREATION = "plan_creation"
    CRITICAL_OBSERVATION = "critical_observation"
    CRITICAL_ACTION = "critical_action"
    SELF_CORRECTION = "self_correction"
    NONE = "none"


_KINDS = tuple(Kind)


@dataclass(frozen=True, slots=True)
class LabelSource:
    """Who said it: a selector with its version, or a person's name."""

    name: str
    version: str = "1"
    model: str | None = None
    prompt_hash: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class StepLabel:
    """One statement about one agent step.

    ``kind`` is None where the selector scores without classifying: the step is a candidate.
    ``Kind.NONE`` says that the step was looked at and is not critical: it is no candidate.
    ``score`` is higher for a more critical step; None for judges, who only name steps.
    """

    trajectory_id: str
    step_id: int
    kind: Kind | None
    source: LabelSource
    score: float | None = None
    reason: str | None = None
    quote: str | None = None
    created_at: str = ""
    supersedes: str | None = None

    @property
    def label_id(self) -> str:
        """SHA-256 of the label's canonical JSON; what ``supersedes`` refers to."""
        return hashlib.sha256(canonical_json(dump_label(self)).encode("ascii")).hexdigest()


def stamped(labels: Iterable[StepLabel]) -> list[StepLabel]:
    """The labels with the present time (UTC, ISO 8601) where they carry none."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [label if label.created_at else replace(label, created_at=now) for label in labels]


def dump_label(label: StepLabel) -> dict[str, Any]:
    """The JSON object of a label; ``kind`` and ``score`` are always written, even when null."""
    source = {
        "name": label.source.name,
        "version": label.source.version,
        "model": label.source.model,
        "prompt_hash": label.source.prompt_hash,
        "run_id": label.source.run_id,
    }
    record = {
        "trajectory_id": label.trajectory_id,
        "step_id": label.step_id,
        "kind": label.kind,
        "source": {k: v for k, v in source.items() if v is not None},
        "score": label.score,
        "reason": label.reason,
        "quote": label.quote,
        "created_at": label.created_at,
        "supersedes": label.supersedes,
    }
    always = ("kind", "score")
    return {k: v for k, v in record.items() if v is not None or k in always}


def parse_label(record: Any) -> StepLabel:
    """The label of a JSON object.

    Raises:
        InvalidTrajectory: a field is missing, unknown or of the wrong type.
    """
    record = an_object(
        record,
        "label",
        "trajectory_id step_id kind source score reason quote created_at supersedes",
    )
    if "kind" not in record:
        raise InvalidTrajectory("label has no 'kind'; null is a scored step without one")
    return StepLabel(
        trajectory_id=typed(record, "trajectory_id", str, "label", required=True),
        step_id=typed(record, "step_id", int, "label", required=True),
        kind=_parse_kind(typed(record, "kind", str, "label")),
        source=_parse_source(typed(record, "source", dict, "label", required=True)),
        score=typed(record, "score", Number, "label"),
        reason=typed(record, "reason", str, "label"),
        quote=typed(record, "quote", str, "label"),
        created_at=typed(record, "created_at", str, "label") or "",
        supersedes=typed(record, "supersedes", str, "label"),
    )


def _parse_kind(name: str | None) -> Kind | None:
    if name is not None and name not in _KINDS:
        raise InvalidTrajectory(f"label has kind '{name}'; known: {', '.join(_KINDS)}, null")
    return None if name is None else Kind(name)


def _parse_source(record: dict[str, Any]) -> LabelSource:
    where = "label source"
    an_object(record, where, "name version model prompt_hash run_id")
    version = typed(record, "version", str, where)
    return LabelSource(
        name=typed(record, "name", str, where, required=True),
        version="1" if version is None else version,
        model=typed(record, "model", str, where),
        prompt_hash=typed(record, "prompt_hash", str, where),
        run_id=typed(record, "run_id", str, where),
    )


def with_corrections(
    labels: Iterable[StepLabel], is_wanted: Callable[[LabelSource], bool]
) -> list[StepLabel]:
    """The labels of some sources, what corrects them, and what corrects that, in their order.

    A correction goes with what it corrects, by whomever it is. It is no label of its author's own:
    who corrects a selector and labels the same steps herself has said two things.
    """
    labels = list(labels)
    is_corrected = any(label.supersedes for label in labels)
    kept: list[StepLabel] = []
    ids: set[str] = set()
    for label in labels:
        if label.supersedes in ids or (label.supersedes is None and is_wanted(label.source)):
            kept.append(label)
            if is_corrected:  # An id costs a hash.
                ids.add(label.label_id)
    return kept


def standing(labels: Iterable[StepLabel]) -> dict[str, list[StepLabel]]:
    """Per trajectory, the labels that nothing supersedes; of one source, the last per step."""
    labels = list(labels)
    superseded = {label.supersedes for label in labels if label.supersedes}
    latest: dict[tuple[str, int, str], StepLabel] = {}
    for label in labels:
        if not superseded or label.label_id not in superseded:
            latest[label.trajectory_id, label.step_id, label.source.name] = label
    by_trajectory: dict[str, list[StepLabel]] = defaultdict(list)
    for label in latest.values():
        by_trajectory[label.trajectory_id].append(label)
    return dict(by_trajectory)
