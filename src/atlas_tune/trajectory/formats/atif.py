"""ATIF as atlas-tune's own store writes it."""

from __future__ import annotations

from typing import Any

from atlas_tune.trajectory.model import Trajectory
from atlas_tune.trajectory.parse import parse_trajectory


def detect(record: Any) -> bool:
    """Whether a record has this format's shape."""
    return isinstance(record, dict) and str(record.get("schema_version", "")).startswith("ATIF")


def read(record: Any) -> Trajectory:
    """The trajectory of one ATIF document.

    Raises:
        InvalidTrajectory: a field is missing, unknown or of the wrong type.
    """
    return parse_trajectory(record)
