"""Commands that hold labels and selections against each other: agree, audit.

Both read and change nothing. What their figures mean: docs/agreement.md.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_tune.cli.audit_json import (
    audit_json,
    bootstrap_json,
    left_json,
    several,
    tell_left,
)
from atlas_tune.cli.measuring import Measuring, measure_criticality
from atlas_tune.cli.options import Json, tell, tell_rejected
from atlas_tune.errors import UsageError

if TYPE_CHECKING:
    from atlas_tune.select.auditing.yardsticks import Yardstick
    from atlas_tune.trajectory import Trajectory

_DRAWS = 2000

RunsOption = Annotated[
    Path | None,
    typer.Option(
        "--runs",
        help="The trajectories that were rated; needed for figures by environment.",
        dir_okay=False,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(help="A scored step without a kind is critical above this; else any candidate."),
]
Draws = Annotated[int, typer.Option(min=100, help="Draws of the bootstrap by trajectory.")]
Seed = Annotated[int, typer.Option(help="Of the bootstrap.")]


def agree(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C …]",
            help="Labels sidecars or selection files; FILE#NAME is one source of a sidecar.",
        ),
    ],
    runs: RunsOption = None,
    threshold: Threshold = None,
    draws: Draws = _DRAWS,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Tell how far raters agree: Cohen's kappa of each pair, Krippendorff's alpha of all."""
    if len(files) < 2:
        raise UsageError("Agreement is between two files or more: name another one.")
    from atlas_tune.cli.audit_tables import tell_agreement, tell_confusion
    from atlas_tune.select.auditing.agreement import agree as agreement_of
    from atlas_tune.select.auditing.agreement import agree_by_environment
    from atlas_tune.select.auditing.ratings import compare, read_rater

    raters = [read_rater(file, threshold) for file in files]
    if threshold is not None and not any(rater.scored for rater in raters):
        raise UsageError("--threshold cuts scores, and none of the files has any: leave it out.")
    compared = compare(raters, _read(runs))
    whole = agreement_of(compared, draws, seed)
    parts = agree_by_environment(compared, draws, seed)
    if as_json:
        found = {
            **asdict(whole),
            "environments": {name: asdict(part) for name, part in parts.items()},
            "not_compared": left_json(compared),
            "bootstrap": bootstrap_json(draws, seed),
        }
        print(json.dumps(found))
        return
    tell_left(compared)
    tell_agreement({"all": whole, **several(parts)}, compared.raters)
    for pair in whole.pairs:
        tell_confusion(pair)


def audit(
    selections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A [B …]",
            help="A selection file or a labels sidecar (FILE#NAME for one source); several only "
            "with --measure.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|progress",
            help="Measured labels, a selection file, or 'progress': the runs' own step rewards.",
        ),
    ] = None,
    yardstick: Annotated[
        str | None,
        typer.Option(help="necessity, scienceworld, webcanvas or who-and-when."),
    ] = None,
    runs: RunsOption = None,
    labels: Annotated[
        str | None, typer.Option(help="A labels sidecar that gives selected steps their kinds.")
    ] = None,
    threshold: Threshold = None,
    data: Annotated[
        Path,
        typer.Option(envvar="ATLAS_TUNE_DATA", help="What holds 'yardsticks'.", file_okay=False),
    ] = Path("../shared/data"),
    write_runs: Annotated[
        Path | None,
        typer.Option(help="Write the yardstick's runs here, to select from.", dir_okay=False),
    ] = None,
    measure: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Measure criticality by playing the runs again; page and JSON go here.",
            file_okay=False,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="With --measure: the model that is started inside runs."),
    ] = None,
    rollouts: Annotated[
        int | None,
        typer.Option(min=1, help="With --policy: from each place.", show_default="1"),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="With --policy.", show_default="0, greedy")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="With --policy: the longest reply.", show_default="256"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="With --policy: rollouts at once.", show_default="32")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="With --policy: float32 (the default) or bfloat16.")
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="With --measure: at most so many runs, by lot.")
    ] = None,
    controls: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --measure: draws of matched random steps.", show_default="5"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --measure: tell what it would take.")
    ] = False,
    draws: Draws = _DRAWS,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Hold selections against measured labels, score rises, a yardstick, or the runs themselves.

    A yardstick has runs of its own: write them with --write-runs, select from them, then audit.
    With --measure the runs are played again, without and with nothing but the selected steps.
    """
    measuring = Measuring(
        policy,
        rollouts,
        temperature,
        max_new_tokens,
        batch_size,
        precision,
        most,
        controls,
        dry_run,
    )
    measuring.check(measure)
    if measure is not None:
        measuring.check_alone(
            against=against,
            yardstick=yardstick,
            labels=labels,
            threshold=threshold,
            write_runs=write_runs,
        )
        return measure_criticality(selections or (), runs, measure, measuring, draws, seed, as_json)
    if len(selections or ()) > 1:
        raise UsageError(
            "One selection is audited at a time; several are measured with --measure DIR."
        )
    selection = selections[0] if selections else None
    if (against is None) == (yardstick is None):
        raise UsageError("Name what to hold the selection against: --against or --yardstick.")
    if yardstick is None and write_runs is not None:
        raise UsageError("--write-runs writes the runs of a yardstick: name one with --yardstick.")
    known = _yardstick(yardstick, data, runs) if yardstick is not None else None
    if known is not None and write_runs is not None:
        if selection is not None:
            raise UsageError("--write-runs is for before the selection: leave one of them out.")
        _write_runs(known, write_runs, as_json)
        return
    if selection is None:
        raise UsageError("Name the selection file, or the labels sidecar, to audit.")
    from atlas_tune.cli.audit_tables import tell_audit
    from atlas_tune.select.auditing.audit import audit as audit_of
    from atlas_tune.select.auditing.ratings import compare, read_rater, with_kinds
    from atlas_tune.select.auditing.yardsticks import score_rises

    rater = read_rater(selection)
    if labels is not None:
        rater = with_kinds(rater, read_rater(labels))
    polarity = "critical"
    if known is not None:
        trajectories: list[Trajectory] | None = list(known.runs)
        reference = known.rater
        polarity = known.polarity
    elif against == "progress":
        if runs is None:
            raise UsageError("Score rises stand in the trajectories: name them with --runs.")
        trajectories = _read(runs)
        reference = score_rises(trajectories or ())
        if not reference.said:
            raise UsageError(f"{runs} records no reward of any step, so no score can rise.")
    else:
        trajectories = _read(runs)
        reference = read_rater(str(against), threshold)
    if threshold is not None and not reference.scored:
        raise UsageError(f"--threshold cuts scores, and {reference.name} has none: leave it out.")
    compared = compare([rater, reference], trajectories)
    found = audit_of(compared, draws, seed)
    if as_json:
        print(json.dumps(audit_json(found, compared, polarity, bootstrap_json(draws, seed))))
        return
    if known is not None:
        print(f"{known.name}: {known.what}")
    tell_left(compared)
    tell_audit(found, several(found.environments), polarity)


def _yardstick(name: str, data: Path, runs: Path | None) -> Yardstick:
    from atlas_tune.select.auditing.yardsticks import load_yardstick

    if runs is not None:
        raise UsageError("A yardstick has runs of its own: leave out --runs.")
    found = load_yardstick(name, data)
    tell_rejected(found.left_out)
    return found


def _write_runs(measure: Yardstick, output: Path, as_json: bool) -> None:
    from atlas_tune.trajectory.files import writing

    with writing(output) as write:
        for run in measure.runs:
            write(run)
    summary = {
        "output": str(output),
        "trajectories": len(measure.runs),
        "steps": sum(len(run.agent_steps) for run in measure.runs),
    }
    tell(summary, as_json, "{trajectories} trajectories with {steps} steps in {output}")


def _read(runs: Path | None) -> list[Trajectory] | None:
    from atlas_tune.cli.options import read_runs

    return None if runs is None else read_runs(runs)[0]
