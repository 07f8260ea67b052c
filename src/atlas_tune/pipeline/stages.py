"""The names of a run's stages, as the manifest and the screen show them."""

from __future__ import annotations

DATA = "data"


def select_stage(arm: str) -> str:
    """Labelling and choosing the steps of an arm."""
    return f"select {arm}"


def tune_stage(arm: str, seed: int) -> str:
    """Tuning a model on an arm's steps."""
    return f"tune {arm}, seed {seed}"


def evaluate_stage(arm: str, seed: int | None, environment: str) -> str:
    """Letting a model act in an environment; the untuned model has no seed."""
    model = arm if seed is None else f"{arm}, seed {seed}"
    return f"evaluate {model} on {environment}"
