"""Step labels: what a selector or a person says of one step, in an append-only sidecar.

Labels stand beside trajectories, never inside them, and nothing is ever rewritten: a correction
is a new line that names the one it ``supersedes``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from atlas_tune.trajectory.model import InvalidTrajectory, canonical_json


class Kind(StrEnum):
    """The paper's four kinds of critical step (section 3); NONE for one judged uncritical."""

    PLAN_CREATION = "plan_creation"
    CRITICAL_OBSERVATION = "critical_observation"
    CRITICAL_ACTION = "critical_action"
    SELF_CORRECTION = "self_correction"
    NONE = "none"


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
    record = asdict(label)
    record["source"] = {k: v for k, v in record["source"].items() if v is not None}
    always = ("kind", "score")
    return {k: v for k, v in record.items() if v is not None or k in always}


def parse_label(record: Any) -> StepLabel:
    """The label of a JSON object.

    Raises:
        InvalidTrajectory: a field is missing, unknown or of the wrong type.
    """
    if not isinstance(record, dict):
        raise InvalidTrajectory(f"a label is a JSON object, found {type(record).__name__}")
    try:
        fields = dict(record)
        kind = fields.pop("kind")
        return StepLabel(
            kind=None if kind is None else Kind(kind),
            source=LabelSource(**fields.pop("source")),
            **fields,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidTrajectory(f"not a step label: {error}") from error


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
