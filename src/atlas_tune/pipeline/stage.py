"""A stage of a run, and how its names are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = "data"


@dataclass(frozen=True, slots=True)
class Stage:
    """One piece of work: what decides it, what it reads and writes, and how it is done."""

    name: str
    """Unique in the run."""
    settings: Callable[[], dict[str, Any]]
    """All that decides the outputs besides the inputs, as JSON values. Asked for when ``after``
    is done, because it may need what that made."""
    run: Callable[[], dict[str, Any]]
    """Does the work; may go on with its own unfinished outputs. What it returns is kept."""
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    appended: tuple[Path, ...] = ()
    """Outputs to which people may add (corrected labels)."""
    after: tuple[str, ...] = ()
    """Stages that come before it."""
    like: tuple[str, ...] = field(default=(), compare=False)
    """What its duration is like, the nearest first: stages with the same word here."""


def select_stage(arm: str) -> str:
    """Labelling and choosing the steps of an arm."""
    return f"select {arm}"


def tune_stage(arm: str, seed: int) -> str:
    """Tuning a model on an arm's steps."""
    return f"tune {arm}, seed {seed}"


def audit_stage(arm: str) -> str:
    """Measuring the steps that an arm selects."""
    return f"audit {arm}"


def evaluate_stage(arm: str, seed: int | None, place: str) -> str:
    """Letting a model act in an environment; the untuned model has no seed."""
    model = arm if seed is None else f"{arm}, seed {seed}"
    return f"evaluate {model} on {place}"
