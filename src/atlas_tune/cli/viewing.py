"""The command that shows runs in a browser and takes labels there: view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atlas_tune.cli.options import Runs, read_runs, read_selection
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.progress import say
from atlas_tune.trajectory import PAPER_BUDGET


def view(
    runs: Runs,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="The labels sidecar to read and to append to.",
            show_default="that of --selection, else that of the runs",
            dir_okay=False,
        ),
    ] = None,
    selection: Annotated[
        Path | None, typer.Option(help="A selection file to show.", dir_okay=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Who labels.", show_default="who is logged in")
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Show nobody else's labels, and no selection.")
    ] = False,
    budget: Annotated[
        float, typer.Option(help="Largest share of a run's steps that labels select.")
    ] = PAPER_BUDGET,
    model: Annotated[
        str | None, typer.Option(help="Show what is trained, by the tokenizer of this model.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8350,
    html: Annotated[
        Path | None,
        typer.Option(help="Write one file to read and share instead.", dir_okay=False),
    ] = None,
) -> None:
    """Read runs in a browser, correct their labels or give your own; serves until Ctrl-C."""
    from atlas_tune.trajectory.sidecars import labels_behind, labels_beside
    from atlas_tune.view.documents import Runs as Shown
    from atlas_tune.view.label_file import LabelFile

    if not 0 < budget <= 1:
        raise UsageError(f"A budget is a share of the steps above 0, at most 1, not {budget:g}.")
    if html is not None and (blind or model is not None):
        raise UsageError("--html shows all labels and no tokens: leave --blind and --model out.")
    trajectories, _ = read_runs(runs)
    chosen = read_selection(selection, runs, trajectories)[0] if selection else {}
    sidecar = labels or (labels_behind(selection) if selection else labels_beside(runs))
    shown = Shown(trajectories, LabelFile(sidecar, name, is_blind=blind), chosen, budget)
    shown.entries()  # A label that fits no step is told now, not when its run is opened.
    if html is not None:
        from atlas_tune.report.results_file import replace_file
        from atlas_tune.view.pages import shared_page

        replace_file(html, shared_page(shown))
        return say(f"{len(shown.by_id):,} runs in {html}")
    try:
        from atlas_tune.listening import address_of, bind, serve
        from atlas_tune.view.app import make_view_app
    except ModuleNotFoundError as error:
        raise AtlasError(
            f"view needs the package '{error.name}': pip install 'atlas-tune[serve]'."
        ) from error
    tokens = None
    if model is not None:
        from atlas_tune.view.trained import trained_tokens

        tokens = trained_tokens(shown, model)
    app = make_view_app(shown, tokens)
    # This machine alone: whoever reaches the port may label under this name.
    with bind("127.0.0.1", port) as listening:
        # The address alone goes to standard output: a script reads it there.
        print(address_of(listening), flush=True)
        say(f"{len(shown.by_id):,} runs; labels of {shown.labels.annotator.name} go to {sidecar}.")
        say("Stop with Ctrl-C.")
        serve(app, listening)
    say("Stopped.")
