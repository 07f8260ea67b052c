"""The command that tells whether a tuned model kept its base skills."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from atlas_tune.agents.local_model import DEFAULT_MODEL, model_digest, resolve_model
from atlas_tune.cli.options import Json
from atlas_tune.errors import UsageError, nearest
from atlas_tune.progress import print_tables, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from atlas_tune.evaluate.skills import SkillComparison


def skills(
    after: Annotated[str, typer.Option(help="The tuned model.")],
    tasks: Annotated[
        list[str],
        typer.Option(metavar="FILE_OR_NAME", help="A task of the harness; may be repeated."),
    ],
    before: Annotated[str, typer.Option(help="The model before tuning.")] = DEFAULT_MODEL,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A JSON file for every score.", dir_okay=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the model's chat template.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 8,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Compare two models on tasks of lm-evaluation-harness, question by question."""
    from atlas_tune.evaluate.skills import compare_skills
    from atlas_tune.evaluate.skills_harness import ask, check_harness, skill_tasks
    from atlas_tune.replacing import replacing
    from atlas_tune.tune.settings import Precision

    if precision not in get_args(Precision):
        known = nearest(precision, get_args(Precision))
        raise UsageError(f"There is no precision '{precision}': {known}")
    check_harness()
    chosen = skill_tasks(tasks)
    places = {"before": resolve_model(before), "after": resolve_model(after)}
    found = {}
    for which, place in places.items():
        say(f"Asking the model {which} tuning.")
        found[which] = ask(
            place, chosen, limit=limit, batch_size=batch_size, precision=precision, chat=chat
        )
    compared = [
        compare_skills(scores, found["after"][task]) for task, scores in found["before"].items()
    ]
    record = {
        "models": {which: model_digest(place) for which, place in places.items()},
        "settings": {"limit": limit, "chat": chat, "precision": precision},
        "tasks": [asdict(one) for one in compared],
    }
    if output is not None:
        scores = {
            which: {task: of_task.values for task, of_task in of_model.items()}
            for which, of_model in found.items()
        }
        with replacing(output) as partial:
            partial.write_text(json.dumps({**record, "scores": scores}, indent=1) + "\n")
    if as_json:
        print(json.dumps(record))
    else:
        print_tables(_table(compared))


def _table(compared: Sequence[SkillComparison]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Base skills")
    for heading in ("task", "metric"):
        table.add_column(heading)
    for heading in ("questions", "before", "after", "difference (95%)", "p", "tuned is"):
        table.add_column(heading, justify="right")
    for one in compared:
        between = "–"
        if one.interval is not None:
            between = "{:+.3f} to {:+.3f}".format(*one.interval)
        table.add_row(
            Text(one.task),
            Text(one.metric),
            str(one.questions),
            f"{one.before:.3f}",
            f"{one.after:.3f}",
            f"{one.difference:+.3f} ({between})",
            f"{one.p_value:.3f}",
            one.verdict,
        )
    return Group(
        table,
        Text(
            "Exact McNemar where every score is 0 or 1, else random sign flips; at 5% a task, not "
            "corrected for several tasks.",
            style="dim",
        ),
    )
