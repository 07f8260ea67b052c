"""The figures of a measurement of criticality, as data: what ``criticality.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atlas_tune.select.auditing.audit import Scores
from atlas_tune.select.auditing.overlap import Overlap
from atlas_tune.select.auditing.resampling import CONFIDENCE, Figure
from atlas_tune.select.auditing.started import Baseline, Started
from atlas_tune.select.auditing.sufficiency import Sufficiency


@dataclass(frozen=True, slots=True)
class Reference:
    """A selection against steps that a measurement marks."""

    scores: Scores
    average_precision: Figure
    average_precision_by_lot: Figure
    """Of an order drawn by lot."""
    control_precision: Figure
    """Of the matched random steps, over all their draws."""
    precision_gain: Figure
    """Precision over that of the controls, which take as many steps of each run."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One selection."""

    name: str
    steps: int
    """Those that it takes."""
    share: float
    """Of all steps."""
    positions: tuple[int, ...]
    """How many lie in each tenth of their runs."""
    ordered_by: str
    """What gave the order of average precision: ``labels`` or ``selection``."""
    why_not_by_labels: str | None
    necessity: Reference
    rises: Reference
    sufficiency: Sufficiency
    control_own: float | None
    """The share of the controls' steps that the selection takes too."""
    control_tokens: float
    """How many more tokens the controls have, as a share; the draw farthest off."""
    started: Started | None
    """None where no policy acted."""


@dataclass(frozen=True, slots=True)
class Controls:
    """How controls were drawn."""

    draws: int
    bins: int
    tokens: str
    """What was matched: supervised tokens, or characters where no policy tells tokens."""
    seed: int


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy that was started inside runs."""

    name: str
    settings: Mapping[str, Any]
    temperature: float
    rollouts: int
    """From each place."""
    digest: str
    runs: int
    """Those from whose inside it could start."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals were drawn."""

    draws: int
    seed: int
    confidence: float = CONFIDENCE
    clusters: str = "trajectories"


@dataclass(frozen=True, slots=True)
class Whole:
    """The runs themselves, replayed whole."""

    reward: Figure
    success: Figure


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run that could not be measured, or not by a policy."""

    trajectory_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Criticality:
    """Everything that was measured."""

    trajectories: int
    steps: int
    environments: Mapping[str, int]
    """How many trajectories of each."""
    necessary: int
    """Steps whose removal loses return."""
    rises: int
    """Steps at which the score rises."""
    rises_at_ends: int
    """Those that are the last step of their run."""
    whole: Whole
    selections: tuple[Measured, ...]
    overlaps: tuple[Overlap, ...]
    controls: Controls
    policy: Policy | None
    baseline: Baseline | None
    """The policy from the beginning of each run's task."""
    rollouts: int
    """How many rollouts ``started`` takes, or would take, at one from each place."""
    bootstrap: Bootstrap
    left_out: tuple[LeftOut, ...]
    """Runs that could not be replayed, or whose tokens could not be counted."""
    not_started: tuple[LeftOut, ...]
    """Runs of the measured ones inside of which the policy could not start."""
    not_selected: int
    """Runs that not every selection has."""
    beyond: int
    """Runs beyond the most that were to be measured."""
