"""What ``select`` does around an oracle, and how a person is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.cli.asking_words import tell_collected, tell_ended, tell_plan
from atlas_tune.errors import UsageError
from atlas_tune.progress import say, ticking

if TYPE_CHECKING:
    from atlas_tune.llm import Journal
    from atlas_tune.llm.batch_answers import Collected
    from atlas_tune.llm.spending import Spending
    from atlas_tune.select.base import Selector
    from atlas_tune.select.oracle import OracleOptions
    from atlas_tune.select.oracle.batching import Size
    from atlas_tune.trajectory import Selection, StepLabel, Trajectory


@dataclass(frozen=True, slots=True)
class Asking:
    """The options of ``select`` that only an oracle has."""

    dry_run: bool = False
    batch_out: Path | None = None
    batch_in: tuple[Path, ...] = ()
    batch_submit: bool = False
    budget_usd: float | None = None
    prices: Path | None = None
    tokenizer: Path | None = None
    expect: tuple[str, ...] = ()
    poll_seconds: float = 30.0
    most_bytes: int | None = None
    most_requests: int | None = None

    def check(self, selector: str) -> None:
        """Refuse what does not go together, before anything is read or paid.

        Raises:
            UsageError: an option that only an oracle has, or two that exclude each other.
        """
        if selector != "oracle" and replace(self, dry_run=False) != Asking():
            raise UsageError(
                f"--batch-…, --budget-usd, --prices, --tokenizer and --expect are "
                f"for the selector 'oracle', and this is '{selector}'."
            )
        modes = [self.dry_run, self.batch_out is not None, self.batch_submit]
        if sum(modes) > 1 or (self.batch_in and any(modes)):
            raise UsageError(
                "--dry-run, --batch-out, --batch-in and --batch-submit are four ways: choose one."
            )

    @property
    def asks_nothing(self) -> bool:
        """Whether answers come from batches alone, so that no request is made on its own."""
        return bool(self.batch_in) or self.batch_submit


class OracleAsking:
    """One run of ``select`` with an oracle: the job of `select/oracle`, told as it goes."""

    def __init__(
        self,
        asking: Asking,
        options: OracleOptions,
        share: float,
        journal: Journal,
        sidecar: Path,
        trajectories: Sequence[Trajectory],
    ) -> None:
        """Raises UsageError as :class:`atlas_tune.select.oracle.asking.OracleJob` does."""
        from atlas_tune.select.oracle.accounting import Terms
        from atlas_tune.select.oracle.asking import OracleJob
        from atlas_tune.select.shares import parse_expected

        self.asking = asking
        self.job = OracleJob(
            options,
            share,
            journal,
            sidecar,
            trajectories,
            Terms(asking.budget_usd, asking.prices, parse_expected(asking.expect)),
            batch=asking.batch_out is not None or asking.batch_submit,
        )

    @property
    def spending(self) -> Spending:
        """What is spent of the budget."""
        return self.job.account.spending

    def selector(self) -> Selector:
        """The oracle of this run, with its journal and its budget."""
        return self.job.selector(asks=not self.asking.asks_nothing)

    def dry_run(self) -> dict[str, Any]:
        """What asking would take, told and as a record; nothing is asked and nothing written."""
        plan = self.job.plan()
        found, batch = self.job.estimates(plan, self.asking.tokenizer)
        price = self.job.account.price
        source = "unknown model: name its price in --prices"
        if price is not None:
            source = f"{price.source or self.asking.prices}, {price.read_on or 'undated'}"
        tell_plan(plan, found, batch, source)
        return {
            "model": self.job.options.model,
            "cached": plan.cached,
            "labelled": plan.labelled,
            "ready": plan.ready,
            "unlabelled": len(plan.unlabelled),
            **asdict(found),
            "batch_usd": batch.usd,
            "price_source": source,
        }

    def write_batch(self) -> dict[str, Any]:
        """Write the batch files of what is left to be asked, as far as the budget goes."""
        from atlas_tune.select.oracle.batching import write_batches

        assert self.asking.batch_out is not None
        written = write_batches(self.job, self.asking.batch_out, self._size())
        return {**asdict(written), "files": [str(path) for path in written.files]}

    def read_batch(self) -> Collected:
        """Store the answers in result files; the run then goes on without asking anything."""
        from atlas_tune.select.oracle.batching import read_batches

        collected = read_batches(self.job, self.asking.batch_in)
        tell_collected(collected)
        return collected

    def submit(self) -> None:
        """Have what is left asked in batches, waiting for batches of earlier runs first.

        Raises:
            ChatError: the server cannot be asked; run again to go on with the same batches.
        """
        from atlas_tune.select.oracle.batching import Listener, submit_batches

        with ticking("batch") as tick:
            listener = Listener(
                on_status=lambda some: tick(
                    sum(one.done or 0 for one in some),
                    sum(one.total or 0 for one in some),
                    "requests, " + ", ".join(f"{one.id} {one.status}" for one in some),
                ),
                on_end=tell_ended,
                on_note=say,
            )
            submit_batches(
                self.job, self._size(), poll_seconds=self.asking.poll_seconds, listener=listener
            )

    def summary(
        self, selections: Sequence[Selection], labels: Sequence[StepLabel]
    ) -> dict[str, Any]:
        """What was done and what it cost, told and as a record; alarms are told last."""
        asked = self.job.asked(selections, labels)
        for sentence in asked.sentences():
            say(sentence)
        return asked.record()

    def _size(self) -> Size:
        from atlas_tune.select.oracle.batching import Size

        limits = {
            "most_bytes": self.asking.most_bytes,
            "most_requests": self.asking.most_requests,
        }
        return Size(**{name: limit for name, limit in limits.items() if limit is not None})
