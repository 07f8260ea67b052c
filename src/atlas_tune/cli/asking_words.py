"""What ``select`` with an oracle tells a person: a plan, and what became of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atlas_tune.cli.options import TOLD
from atlas_tune.progress import say

if TYPE_CHECKING:
    from atlas_tune.llm.batch_answers import Collected
    from atlas_tune.llm.batch_run import Ended
    from atlas_tune.select.oracle.estimate import Estimate
    from atlas_tune.select.oracle.plan import Plan


def tell_plan(plan: Plan, found: Estimate, batch: Estimate, source: str) -> None:
    """Say what asking would take; ``source`` is where the price comes from."""
    from atlas_tune.llm.prices import told

    worst = found.worst_completion_tokens
    most = "unknown" if worst is None else f"{worst:,}"
    lines = [
        f"{found.requests} requests, {plan.cached} answered already; {plan.labelled} trajectories "
        f"are labelled, {plan.ready} more can be at once.",
        f"prompt tokens      {found.prompt_tokens:>15,}  ({found.counted_by})",
        f"completion tokens  {found.completion_tokens:>15,}  ({found.completion_by})",
        f"  at the worst     {most:>15}  (all cut off and repeated, and a second question)",
        f"cost               {told(found.usd):>15}  ({source})",
        f"  as a batch       {told(batch.usd):>15}",
        f"  at the worst     {told(found.worst_usd):>15}",
    ]
    refused = [f"cannot be asked: {one.trajectory_id}: {one.reason}" for one in plan.unlabelled]
    for line in [*lines, *refused[:TOLD]]:
        say(line)


def tell_collected(collected: Collected) -> None:
    """Say what became of results, the first of every kind of trouble by name."""
    say(f"{collected.stored} answers stored, {collected.duplicates} known before.")
    for title, names in (
        ("failed", [f"{key[:12]}…: {why}" for key, why in collected.failed.items()]),
        ("of no request of ours", collected.unknown),
        ("unreadable", collected.unreadable),
    ):
        if names:
            say(f"{len(names)} {title}, such as:")
            for name in names[:TOLD]:
                say(f"  {name}")


def tell_ended(ended: Ended) -> None:
    """Say how a batch ended, with the first of what its server says of it."""
    say(f"Batch {ended.id} is {ended.status}; {len(ended.unanswered)} without an answer.")
    for problem in ended.problems[:TOLD]:
        say(f"  {problem}")
    tell_collected(ended.collected)
