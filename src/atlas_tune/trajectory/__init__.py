"""Trajectories, step labels and selections: the nouns that all rooms share."""

from atlas_tune.trajectory.labels import (
    Kind,
    LabelSource,
    StepLabel,
    stamped,
    standing,
    with_corrections,
)
from atlas_tune.trajectory.model import (
    InvalidTrajectory,
    Observation,
    ObservationResult,
    Outcome,
    Step,
    ToolCall,
    Trajectory,
    dump_trajectory,
)
from atlas_tune.trajectory.parse import parse_trajectory
from atlas_tune.trajectory.selection import PAPER_BUDGET, Selection, budget_steps, choose

__all__ = [
    "PAPER_BUDGET",
    "InvalidTrajectory",
    "Kind",
    "LabelSource",
    "Observation",
    "ObservationResult",
    "Outcome",
    "Selection",
    "Step",
    "StepLabel",
    "ToolCall",
    "Trajectory",
    "budget_steps",
    "choose",
    "dump_trajectory",
    "parse_trajectory",
    "stamped",
    "standing",
    "with_corrections",
]
