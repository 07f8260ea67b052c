"""The model card beside tuned weights: what was trained, on what, with which selection.

A ``README.md`` with the Hub's metadata in front, so that a model can be shared as it lies there.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from atlas_tune import __version__
from atlas_tune.trajectory import Selection, Trajectory
from atlas_tune.trajectory.visible import one_line
from atlas_tune.tune.settings import TuneSettings

_PACKAGES = ("torch", "transformers", "peft")


def model_card(
    base: str,
    digest: str,
    trajectories: Sequence[Trajectory],
    selections: Mapping[str, Selection],
    kinds: Mapping[tuple[str, int], str],
    settings: TuneSettings,
    seed: int,
    figures: Mapping[str, Any],
) -> str:
    """The card's text; a function of what it is given, without a date.

    Args:
        base: the base model as it was asked for.
        digest: of the base model's weights.
        trajectories: all of the run.
        selections: by trajectory id.
        kinds: by trajectory and step id, see :func:`atlas_tune.tune.held_out.kinds_of`.
        settings: how it was trained.
        seed: of the training.
        figures: those of :func:`atlas_tune.tune.trainer.train`.
    """
    steps = {run.trajectory_id: len(run.agent_steps) for run in trajectories}
    selected = Counter(
        kinds[key, step]
        for key, selection in selections.items()
        for step in selection.step_ids
        if (key, step) in kinds
    )
    chosen, whole = sum(selected.values()), sum(steps.values())
    rules = sorted({selection.rule for selection in selections.values()})
    environments = Counter(run.environment or "unknown" for run in trajectories)
    lines = [
        "---",
        "library_name: transformers",
        f"base_model: {json.dumps(base)}",
        "tags: [atlas-tune, agent]",
        "---",
        "",
        "# A model tuned on selected steps of agent trajectories",
        "",
        f"`{one_line(base)}` (weights {digest[:12]}), tuned with atlas-tune {__version__}. The "
        "loss was computed on the selected steps alone, with each whole trajectory before them as "
        "context (ATLaS, arXiv 2503.02197).",
        "",
        "## Data",
        "",
        "| environment | trajectories |",
        "|---|---|",
        *(f"| {one_line(name)} | {count:,} |" for name, count in sorted(environments.items())),
        "",
        f"{figures['left_out']:,} trajectories had no selected step, {figures['held_out']:,} were "
        f"held out, and {len(figures['too_long']):,} rows were too long.",
        "",
        "## Selection",
        "",
        f"Rule: {', '.join(f'`{one_line(rule)}`' for rule in rules)}. {chosen:,} of {whole:,} "
        f"agent steps ({chosen / whole:.1%}) were selected.",
        "",
        "| kind | steps |",
        "|---|---|",
        *(f"| {kind.replace('_', ' ')} | {count:,} |" for kind, count in sorted(selected.items())),
        "",
        "## Training",
        "",
        f"{figures['optimiser_steps']:,} optimiser steps, {figures['supervised_tokens']:,} "
        f"supervised of {figures['tokens']:,} tokens; loss {figures['first_loss']:.3f} at the "
        f"first step, {figures['last_loss']:.3f} at the last; seed {seed}.",
        "",
        "```json",
        json.dumps(settings.model_dump(), indent=1),
        "```",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in _versions()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _versions() -> list[tuple[str, str]]:
    return [(name, importlib.metadata.version(name)) for name in _PACKAGES]
