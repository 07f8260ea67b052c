"""The command that says which steps are critical: select."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune.agents.local_model import DEFAULT_MODEL
from atlas_tune.cli.options import (
    Json,
    Runs,
    Settings,
    beside,
    keep_rejected,
    parse_options,
    read_runs,
    tell,
    tell_rejected,
)
from atlas_tune.errors import UsageError
from atlas_tune.progress import ticking
from atlas_tune.trajectory import PAPER_BUDGET

if TYPE_CHECKING:
    from atlas_tune.select import Selector
    from atlas_tune.trajectory import Trajectory


def select(
    runs: Runs,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The selection file to write.", dir_okay=False)
    ],
    selector: Annotated[
        str, typer.Option(help="Its name (docs/selectors.md), or your own FILE.py:FUNCTION.")
    ] = "replay",
    budget: Annotated[
        float, typer.Option(help="Largest share of a trajectory's steps, above 0, at most 1.")
    ] = PAPER_BUDGET,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="The labels sidecar.", show_default="<output>.labels.jsonl", dir_okay=False
        ),
    ] = None,
    of: Annotated[
        Path | None,
        typer.Option(
            help="For complement and random: the selection they are held against.",
            dir_okay=False,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="The base policy, for selectors that ask one.")
    ] = DEFAULT_MODEL,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what labelling would take, and do nothing.")
    ] = False,
    batch_out: Annotated[
        Path | None,
        typer.Option(help="Oracle: write batch files into this new directory.", file_okay=False),
    ] = None,
    batch_in: Annotated[
        list[Path] | None,
        typer.Option(help="Oracle: read result files of a batch, ask nothing.", dir_okay=False),
    ] = None,
    batch_submit: Annotated[
        bool, typer.Option("--batch-submit", help="Oracle: ask through the Batch endpoint.")
    ] = False,
    budget_usd: Annotated[
        float | None, typer.Option(help="Oracle: the most to spend on this labels file, in USD.")
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(help="Oracle: prices that add to the shipped ones.", dir_okay=False),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Oracle: tokenizer.json to count a dry run with.")
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(metavar="ENV=LOW-HIGH", help="Oracle: share of steps that is no alarm."),
    ] = None,
    batch_poll: Annotated[
        float, typer.Option(min=1, help="Seconds between looks at a batch.")
    ] = 30.0,
    batch_bytes: Annotated[
        int | None, typer.Option(min=1, help="Largest batch file.", show_default="200,000,000")
    ] = None,
    batch_requests: Annotated[
        int | None, typer.Option(min=1, help="Most requests in one.", show_default="50,000")
    ] = None,
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Label steps and choose the critical ones; goes on where it was."""
    from atlas_tune.cli.asking import Asking, OracleAsking
    from atlas_tune.environments import make_environment
    from atlas_tune.llm import Journal
    from atlas_tune.select import Context, make_selector
    from atlas_tune.select.labelling import same_source
    from atlas_tune.select.oracle import OracleOptions
    from atlas_tune.select.registry import selector_options
    from atlas_tune.select.stage import select_steps
    from atlas_tune.trajectory.quarantine import Rejected
    from atlas_tune.trajectory.store import read_labels, read_selections

    if not 0 < budget <= 1:
        raise UsageError(f"A budget is a share of the steps above 0, at most 1, not {budget:g}.")
    sidecar = labels or beside(output, ".labels.jsonl")
    imported = beside(runs, ".labels.jsonl")
    asking = Asking(
        dry_run,
        batch_out,
        tuple(batch_in or ()),
        batch_submit,
        budget_usd,
        prices,
        tokenizer,
        tuple(expect or ()),
        batch_poll,
        batch_bytes,
        batch_requests,
    )
    asking.check(selector)
    given = selector_options(selector, parse_options(options))
    trajectories, rejected = read_runs(runs)
    oracle: OracleAsking | None = None
    with closing(Journal(beside(sidecar, ".journal.sqlite"))) as journal:
        if isinstance(given, OracleOptions):
            oracle = OracleAsking(asking, given, budget, journal, sidecar, trajectories)
            if asking.dry_run:
                return tell(oracle.dry_run(), as_json, "{requests} requests")
            if asking.batch_out is not None:
                return tell(oracle.write_batch(), as_json, "{requests} requests in {files}")
            if asking.batch_in:
                oracle.read_batch()
            if asking.batch_submit:
                oracle.submit()
            built: Selector = oracle.selector()
        else:
            context = Context(
                share=budget,
                other=list(read_selections(of).values()) if of else None,
                journal=journal,
                imported=list(read_labels(imported)) if imported.is_file() else (),
                make_environment=make_environment,
                model=model,
                trajectories=trajectories,
                directory=beside(sidecar, ".files"),
            )
            built = make_selector(selector, given.model_dump(), context)
            if dry_run:
                return _tell_cost(built, trajectories, as_json)
        with ticking(f"select by {selector}") as tick:
            chosen, unlabelled = select_steps(
                trajectories,
                built,
                budget,
                sidecar,
                output,
                lambda done, of: tick(done, of, "trajectories"),
            )
        asked = None
        if oracle is not None:
            labelled = read_labels(sidecar) if sidecar.is_file() else ()
            said = [one for one in labelled if same_source(one.source, built.source)]
            asked = oracle.summary(chosen, said)
    missing = [
        Rejected(str(runs), 0, 0, f"unlabelled: {one.reason}", one.trajectory_id)
        for one in unlabelled
    ]
    tell_rejected(missing)
    summary = {
        "output": str(output),
        "labels": str(sidecar),
        "trajectories": len(chosen),
        "selected_steps": sum(len(s.step_ids) for s in chosen),
        "steps": sum(len(t.agent_steps) for t in trajectories),
        "unlabelled": [m.trajectory_id for m in unlabelled],
        **({} if asked is None else {"asking": asked}),
    }
    tell(summary, as_json, "{selected_steps} of {steps} steps selected in {output}")
    keep_rejected(output, [*rejected, *missing])


def _tell_cost(selector: Selector, trajectories: Sequence[Trajectory], as_json: bool) -> None:
    """What labelling would take; nothing is asked, played or written."""
    cost: dict[str, Any] = asdict(selector.cost(trajectories))
    told = [
        f"{count:,} {what}"
        for what, count in (
            ("tokens to read", cost["read_tokens"]),
            ("tokens to write at most", cost["written_tokens"]),
            ("tokens to tune on", cost["tuned_tokens"]),
            ("rollouts at most", cost["rollouts"]),
            ("actions to play at most", cost["env_steps"]),
        )
        if count
    ]
    record = {"selector": selector.name, "trajectories": len(trajectories), **cost}
    what = ", ".join(told) or "no model and no environment"
    tell(record, as_json, "{selector}, {trajectories} trajectories: " + what)
