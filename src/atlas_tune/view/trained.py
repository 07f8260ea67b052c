"""What would be trained of a run as its labels stand, for the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atlas_tune.errors import UsageError
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.visible import visible
from atlas_tune.view.documents import Runs


def trained_tokens(runs: Runs, model: str) -> Callable[[Trajectory, str], list[dict[str, Any]]]:
    """A function of a run and a source that gives the rows that would be trained, in pieces.

    Args:
        runs: whose labels select the steps.
        model: whose tokenizer and chat template write the rows.

    Raises:
        AtlasError: there is no such model.
    """
    # Here and not above: who only labels has no transformers.
    from atlas_tune.agents.local_model import load_tokenizer
    from atlas_tune.tune.previews import Preview
    from atlas_tune.tune.render import write_rows

    tokenizer = load_tokenizer(model)

    def rows_of(run: Trajectory, source: str) -> list[dict[str, Any]]:
        selection = runs.selection(run, source)
        if not selection.step_ids:
            raise UsageError("No step of this run is selected, so nothing of it is trained.")
        return [_row(Preview.of(row)) for row in write_rows(tokenizer, run, selection)]

    def _row(preview: Preview) -> dict[str, Any]:
        return {
            "tokens": preview.tokens,
            "computed": preview.computed,
            "supervised": preview.supervised,
            "pieces": [
                {
                    "text": visible(piece.text),
                    "step": piece.step_id,
                    "tokens": piece.tokens,
                    "is_cut": piece.is_cut,
                }
                for piece in preview.pieces
            ],
        }

    return rows_of
