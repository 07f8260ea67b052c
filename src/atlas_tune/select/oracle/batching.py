"""What is left to be asked, in batches: as files, or through an endpoint that works on them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas_tune.errors import UsageError
from atlas_tune.llm.batch import MOST_BYTES, MOST_REQUESTS, Part, write_batch
from atlas_tune.llm.batch_answers import Collected, collect_results
from atlas_tune.llm.batch_endpoint import Batch, BatchEndpoint
from atlas_tune.llm.batch_run import BatchRun, Ended
from atlas_tune.llm.spending import BudgetSpent
from atlas_tune.select.oracle.asking import OracleJob
from atlas_tune.select.oracle.plan import Plan

_ROUNDS = 4
"""First questions, second ones, and each once more for what a batch left unanswered."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a batch file may become."""

    most_bytes: int = MOST_BYTES
    most_requests: int = MOST_REQUESTS


@dataclass(frozen=True, slots=True)
class Written:
    """Batch files, how many requests they hold, and how many the budget left out."""

    files: tuple[Path, ...]
    requests: int
    over_budget: int


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told what batches do: which are under way, which have ended, what else there is."""

    on_status: Callable[[Sequence[Batch]], None] = lambda batches: None
    on_end: Callable[[Ended], None] = lambda ended: None
    on_note: Callable[[str], None] = lambda sentence: None


def write_batches(job: OracleJob, directory: Path, size: Size) -> Written:
    """Write the batch files of what is left to be asked, as far as the budget goes.

    Raises:
        UsageError: nothing is left to be asked, or the directory is there already.
    """
    requests, left_out = _affordable(job, job.plan())
    if not requests:
        raise UsageError("There is nothing to be asked: no batch file is written.")
    parts = _written(directory, requests, size)
    with job.journal.together():
        for key, body in requests:
            job.journal.plan(key, body)
    return Written(tuple(part.path for part in parts), len(requests), left_out)


def read_batches(job: OracleJob, results: Sequence[Path]) -> Collected:
    """Store the answers in result files; those to no request of ours are listed."""
    known = {*job.plan(with_labelled=True).seen, *job.journal.states()}
    return collect_results(results, known, job.journal)


def submit_batches(
    job: OracleJob, size: Size, *, poll_seconds: float, listener: Listener | None = None
) -> None:
    """Have what is left asked in batches, waiting for batches of earlier runs first.

    Raises:
        ChatError: the server cannot be asked; run again to go on with the same batches.
    """
    told = listener or Listener()
    options = job.options
    with BatchEndpoint(
        options.base_url,
        api_key_env=options.api_key_env,
        timeout=options.timeout,
        retries=options.retries,
    ) as endpoint:
        run = BatchRun(
            endpoint,
            job.journal,
            job.sidecar.with_name(job.sidecar.name + ".batches"),
            poll_seconds=poll_seconds,
            on_status=told.on_status,
        )
        if run.wanted() or run.open():
            told.on_note("Going on with the batches of an earlier run.")
            _finish(job, run, told)
        for _ in range(_ROUNDS):
            requests, left_out = _affordable(job, job.plan())
            if left_out:
                told.on_note(f"{left_out} requests are over the budget and are not asked.")
            if not requests:
                return
            with tempfile.TemporaryDirectory(dir=job.sidecar.parent) as place:
                run.want(_written(Path(place) / "parts", requests, size))
            if not _finish(job, run, told):
                return


def _finish(job: OracleJob, run: BatchRun, told: Listener) -> int:
    """How many answers the open batches brought."""
    stored = 0
    for ended in run.finish(job.plan(with_labelled=True).seen):
        told.on_end(ended)
        stored += ended.collected.stored
    return stored


def _affordable(job: OracleJob, plan: Plan) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """The requests whose worst cases fit what is left of the budget, and how many do not."""
    found = []
    calls = []
    for request in plan.requests:
        try:
            calls.append(job.account.spending.call(request.body))
        except BudgetSpent:
            continue
        found.append((request.key, request.body))
    for call in calls:
        # Answers are priced when they are there; the next plan counts anew.
        call.release()
    return found, len(plan.requests) - len(found)


def _written(directory: Path, requests: list[tuple[str, dict[str, Any]]], size: Size) -> list[Part]:
    return write_batch(
        directory, requests, most_bytes=size.most_bytes, most_requests=size.most_requests
    )
