"""The command that shows which tokens are trained: preview."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_tune.agents.local_model import DEFAULT_MODEL
from atlas_tune.cli.models import Model
from atlas_tune.cli.options import Runs, read_runs, read_selection
from atlas_tune.errors import UsageError
from atlas_tune.progress import say

if TYPE_CHECKING:
    from atlas_tune.tune.previews import Preview

_OPEN, _CLOSE = "\N{LEFT WHITE LENTICULAR BRACKET}", "\N{RIGHT WHITE LENTICULAR BRACKET}"


def preview(
    runs: Runs,
    selection: Annotated[
        Path, typer.Option(help="The selection: which steps carry loss.", dir_okay=False)
    ],
    model: Model = DEFAULT_MODEL,
    trajectory: Annotated[
        str | None,
        typer.Option(help="The beginning of a trajectory's id.", show_default="the first"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page instead.", dir_okay=False)] = None,
    rows: Annotated[int, typer.Option(min=1, help="Trajectories on the page.")] = 20,
) -> None:
    """Show a trajectory as the model's chat template writes it, with the trained tokens marked."""
    from atlas_tune.agents.local_model import load_tokenizer
    from atlas_tune.report.preview_page import render_preview
    from atlas_tune.report.results_file import replace_file
    from atlas_tune.trajectory.sidecars import labels_behind
    from atlas_tune.trajectory.store import read_labels
    from atlas_tune.tune.held_out import kinds_of
    from atlas_tune.tune.mask_check import MaskError
    from atlas_tune.tune.previews import Preview
    from atlas_tune.tune.render import rewriting_notice, write_rows

    trajectories, _ = read_runs(runs)
    selections, _ = read_selection(selection, runs, trajectories)
    known = [run for run in trajectories if run.trajectory_id in selections]
    known = [run for run in known if selections[run.trajectory_id].step_ids]
    if trajectory is not None:
        known = [run for run in known if run.trajectory_id.startswith(trajectory)]
    if not known:
        raise UsageError(
            f"{selection} selects no step"
            + (f" of a trajectory whose id begins with '{trajectory}'." if trajectory else ".")
        )
    shown = known[: rows if html else 1]
    tokenizer = load_tokenizer(model)
    written = []
    for run in shown:
        try:
            written += write_rows(tokenizer, run, selections[run.trajectory_id])
        except MaskError as error:
            if len(shown) == 1:
                raise
            say(str(error))
    notice = rewriting_notice(row.row for row in written)
    if notice is not None:
        say(notice)
    previews = [Preview.of(row) for row in written]
    sidecar = labels_behind(selection)
    labels = read_labels(sidecar) if sidecar.is_file() else ()
    kinds = kinds_of(shown, selections, labels)
    if html is None:
        for one in previews:
            _show(one, kinds)
        return
    replace_file(html, render_preview(previews, kinds, model, len(known) - len(shown)))
    say(f"{len(previews)} rows of {len(shown)} trajectories in {html}")


def _show(one: Preview, kinds: Mapping[tuple[str, int], str]) -> None:
    """Print a row: trained tokens in colour on a screen, in brackets where there is none."""
    from rich.console import Console
    from rich.text import Text

    from atlas_tune.report.wording import kind_name
    from atlas_tune.trajectory.visible import visible

    console = Console(highlight=False, soft_wrap=True)
    text = Text()
    for piece in one.pieces:
        words = visible(piece.text)
        if piece.step_id is None:
            text.append(words, "dim" if piece.is_cut else "")
        elif console.is_terminal and not console.no_color:
            text.append(words, "bold black on yellow")
        else:
            text.append(f"{_OPEN}{words}{_CLOSE}")
    console.print(text)
    console.print()
    for piece in one.pieces:
        if piece.step_id is not None:
            kind = kinds.get((one.trajectory_id, piece.step_id))
            named = f" ({kind_name(kind)})" if kind else ""
            console.print(f"step {piece.step_id}{named}: {piece.tokens:,} tokens trained")
    console.print(
        f"{one.trajectory_id[:12]}: {one.supervised:,} of {one.tokens:,} tokens are trained "
        f"({one.supervised / one.tokens:.1%}), {one.computed:,} are computed."
    )
