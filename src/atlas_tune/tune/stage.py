"""The tuning stage: a model, trajectories and a selection in; a tuned model out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atlas_tune.agents.local_model import load_model, load_tokenizer, model_digest
from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Selection, Trajectory
from atlas_tune.tune.render import Row, render_rows
from atlas_tune.tune.settings import TuneSettings
from atlas_tune.tune.trainer import train


def tune_model(
    model: str,
    trajectories: Sequence[Trajectory],
    selections: Mapping[str, Selection],
    settings: TuneSettings,
    directory: Path,
    seed: int,
    on_step: Callable[[int, int, float], None] = lambda step, of, loss: None,
) -> dict[str, Any]:
    """Tune ``model`` on the selected steps and save it in ``directory``.

    Trajectories without a selected step carry no loss and are left out; so are rows longer than
    ``settings.max_tokens``, whose trajectories are listed under ``too_long``.

    Returns:
        The figures of :func:`atlas_tune.tune.trainer.train`, with ``left_out`` and ``too_long``.

    Raises:
        AtlasError: nothing is left to train on.
    """
    tokenizer = load_tokenizer(model)
    rows: list[Row] = []
    too_long: list[str] = []
    left_out = 0
    for trajectory in trajectories:
        selection = selections.get(trajectory.trajectory_id)
        if selection is None or not selection.step_ids:
            left_out += 1
            continue
        for row in render_rows(tokenizer, trajectory, selection):
            if len(row.input_ids) > settings.max_tokens:
                too_long.append(trajectory.trajectory_id)
            else:
                rows.append(row)
    if not rows:
        raise AtlasError(
            f"Nothing to train on: of {len(trajectories)} trajectories {left_out} have no "
            f"selected step and {len(too_long)} rows are longer than {settings.max_tokens} "
            "tokens. Widen the selection or raise max_tokens."
        )
    figures = train(
        load_model(model),
        tokenizer,
        rows,
        settings,
        directory,
        seed,
        on_step,
        base=model_digest(model),
    )
    return {**figures, "left_out": left_out, "too_long": too_long}
