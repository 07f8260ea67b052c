"""Commands that leave trajectories out of a store: filter, dedupe.

Ids stay as they are, so labels and selections stay valid; the labels that stand beside the store
go along. Where an output ends in ``.parquet`` it is Parquet, else JSONL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune.cli.options import TOLD, Json, tell
from atlas_tune.cli.streams import Store, counted, quarantining
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.progress import say

if TYPE_CHECKING:
    from atlas_tune.trajectory import Trajectory

Output = Annotated[
    Path,
    typer.Option("-o", "--output", help="The store to write: JSONL, or .parquet.", dir_okay=False),
]
RejectedFile = Annotated[
    Path | None,
    typer.Option("--rejected", help="Keep what is left out in this store.", dir_okay=False),
]


def filter_(
    store: Store,
    output: Output,
    success: Annotated[
        bool | None,
        typer.Option("--success/--failure", help="Only runs known to succeed, or to fail."),
    ] = None,
    min_reward: Annotated[float | None, typer.Option(help="Least reward.")] = None,
    max_reward: Annotated[float | None, typer.Option(help="Largest reward.")] = None,
    environment: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this one; may be repeated.")
    ] = None,
    min_steps: Annotated[int | None, typer.Option(help="Least number of agent steps.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Largest number of agent steps.")] = None,
    drop_unsuccessful: Annotated[
        bool, typer.Option("--drop-unsuccessful", help="Leave out runs known not to succeed.")
    ] = False,
    drop_done_at_start: Annotated[
        bool,
        typer.Option(
            "--drop-done-at-start",
            help="Leave out runs that had the whole reward before, or with, their first step.",
        ),
    ] = False,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="For both --drop options: play runs that record no outcome in our environments.",
        ),
    ] = False,
    rejected: RejectedFile = None,
    as_json: Json = False,
) -> None:
    """Keep the trajectories that meet all conditions; every one left out is counted by reason.

    The two --drop options keep a run of which nothing is known, and tell how many those are.
    """
    from atlas_tune.trajectory.filters import Sieve, Wanted

    if replay and not (drop_unsuccessful or drop_done_at_start):
        raise UsageError(
            "--replay judges runs for --drop-unsuccessful and --drop-done-at-start: "
            "give one of them."
        )
    wanted = Wanted(
        success,
        min_reward,
        max_reward,
        frozenset(environment) if environment else None,
        frozenset(task) if task else None,
        min_steps,
        max_steps,
    )
    sieve = Sieve(wanted, drop_unsuccessful, drop_done_at_start)
    replayer = None
    if replay:
        from atlas_tune.environments import make_environment
        from atlas_tune.select.replaying.replayed import Replayer

        replayer = Replayer(make_environment)
        sieve.judge = replayer.judge
    summary = sort_store(store, output, rejected, sieve.refusal)
    summary["unknown"] = dict(sieve.unknown)
    if replayer is not None:
        summary["replayed"] = replayer.replayed
        say(f"{replayer.replayed:,} runs were replayed.")
    for what, count in sieve.unknown.items():
        say(f"{count:,} kept though nothing tells {what}.")
    _tell(summary, as_json)


def dedupe(
    store: Store,
    output: Output,
    by: Annotated[
        str,
        typer.Option(
            help="content: equal in everything; messages: in the text of all steps; task: one run "
            "of each task, the best and then the shortest."
        ),
    ] = "content",
    rejected: RejectedFile = None,
    as_json: Json = False,
) -> None:
    """Leave out runs that repeat others, and tell which."""
    from atlas_tune.errors import nearest
    from atlas_tune.trajectory.dedupe import KEYS, best_of_each
    from atlas_tune.trajectory.files import read_runs

    if by not in KEYS:
        raise UsageError(f"No way to dedupe by '{by}': {nearest(by, KEYS)}")
    # Twice through the file rather than all of it in memory: the best of a task may come last.
    first_pass = counted(read_runs(store, lambda _: None), f"compare {store}")
    best = best_of_each(first_pass, KEYS[by])
    told = index = -1

    def refusal(trajectory: Trajectory) -> str | None:
        nonlocal told, index
        index += 1
        kept = best[KEYS[by](trajectory)]
        if kept.index == index:
            return None
        told += 1
        if told < TOLD:
            # By number, since runs that are equal in everything have the same id.
            say(
                f"left out trajectory {index + 1:,} ({trajectory.trajectory_id[:12]}), "
                f"kept trajectory {kept.index + 1:,}"
            )
        return _REPEATS[by]

    _tell(sort_store(store, output, rejected, refusal), as_json)


_REPEATS = {
    "content": "the very same as another",
    "messages": "the same words as another",
    "task": "another run of the task is kept",
}


def sort_store(
    store: Path,
    output: Path,
    rejected: Path | None,
    refusal: Callable[[Trajectory], str | None],
) -> dict[str, Any]:
    """Write what ``refusal`` finds no reason against to one store, the rest to another."""
    from atlas_tune.trajectory.files import read_runs, writing
    from atlas_tune.trajectory.sidecars import carry_labels, labels_beside

    if rejected is not None and rejected.resolve() in (output.resolve(), store.resolve()):
        raise UsageError(f"--rejected {rejected} would replace the output or the store itself.")
    reasons: Counter[str] = Counter()
    kept = 0
    carried = labels_beside(store).is_file()
    ids: dict[Path, set[str]] = {path: set() for path in (output, rejected) if path}
    with quarantining(output) as (quarantine, reject), ExitStack() as stack:
        keep = stack.enter_context(writing(output))
        leave = stack.enter_context(writing(rejected)) if rejected else lambda trajectory: None
        for trajectory in counted(read_runs(store, reject), f"sort {store}"):
            reason = refusal(trajectory)
            (keep if reason is None else leave)(trajectory)
            if carried and (reason is None or rejected):
                ids[output if reason is None else rejected or output].add(trajectory.trajectory_id)
            kept += reason is None
            reasons[reason or ""] += reason is not None
        if not kept:
            told = ", ".join(f"{count:,} {reason}" for reason, count in (+reasons).most_common())
            raise AtlasError(
                f"Nothing of {store} is left, so {output} is not written"
                + (f": {told}." if told else ": it holds no trajectory.")
            )
    return {
        "output": str(output),
        "kept": kept,
        "left_out": reasons.total(),
        "reasons": dict((+reasons).most_common()),
        "rejected": str(rejected) if rejected else None,
        "labels": carry_labels(store, ids),
        "quarantined": quarantine.count,
    }


def _tell(summary: dict[str, Any], as_json: bool) -> None:
    sentence = "{kept} trajectories kept in {output}; {left_out} left out"
    if not as_json:
        for reason, count in summary["reasons"].items():
            print(f"{count:>8,} left out: {reason}")
    tell(summary, as_json, sentence)
    if summary["quarantined"]:
        raise typer.Exit(3)
