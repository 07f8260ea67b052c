"""One oracle at work on one set of trajectories: its plan, its client, its figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from atlas_tune.llm import Journal
from atlas_tune.progress import say
from atlas_tune.select.labelling import same_source
from atlas_tune.select.oracle.accounting import Account, Terms
from atlas_tune.select.oracle.asked import Asked
from atlas_tune.select.oracle.budgeted import BudgetedClient
from atlas_tune.select.oracle.estimate import Estimate, estimate
from atlas_tune.select.oracle.options import OracleOptions
from atlas_tune.select.oracle.plan import Plan, PlanningClient, plan_requests
from atlas_tune.select.oracle.selector import OracleSelector
from atlas_tune.select.shares import shares_of
from atlas_tune.trajectory import LabelSource, Selection, StepLabel, Trajectory
from atlas_tune.trajectory.store import read_labels


class OracleJob:
    """What ``select`` and a recipe's arm share: an oracle, its journal, its labels, its terms."""

    def __init__(
        self,
        options: OracleOptions,
        share: float,
        journal: Journal,
        sidecar: Path,
        trajectories: Sequence[Trajectory],
        terms: Terms,
        *,
        others: Sequence[Path] = (),
        batch: bool = False,
    ) -> None:
        """``others`` are the journals of other oracles under the same budget.

        ``sidecar`` is where labels are, or will be; ``batch`` counts at the price of a batch.

        Raises:
            UsageError: a budget is given and no price is known, the prices cannot be read, or a
                share is expected of an environment that no trajectory is of.
        """
        terms.check(options)
        # At the end it would be refused too, but then everything is paid.
        shares_of(trajectories, (), (), share, terms.expected)
        self.options = options
        self.share = share
        self.journal = journal
        self.sidecar = sidecar
        self.trajectories = trajectories
        self.terms = terms
        self.account = Account(terms, options.model, [journal.path, *others], batch=batch)
        if terms.budget_usd is not None and self.account.before.unpriced:
            say(
                f"{self.account.before.unpriced} earlier calls have no known price; the budget "
                "ignores them."
            )
        self._started = time.monotonic()
        self._before = journal.summary()

    def plan(self, *, with_labelled: bool = False) -> Plan:
        """What is left to be asked; ``with_labelled`` looks at labelled trajectories too."""
        is_fresh = with_labelled or not self.sidecar.is_file()
        done = [] if is_fresh else read_labels(self.sidecar)
        return plan_requests(
            self.trajectories, self.options, self.share, done=done, look=self.journal.stored
        )

    def estimates(self, plan: Plan, tokenizer: Path | None = None) -> tuple[Estimate, Estimate]:
        """What asking a plan would take, in single calls and as a batch.

        ``tokenizer`` counts instead of the one that the options name.

        Raises:
            UsageError: there is no tokenizer at that place.
        """
        place, answers = tokenizer or self.options.tokenizer, self.account.answer_lengths()
        one, many = (
            estimate(plan, self.account.price, tokenizer=place, answers=answers, batch=batch)
            for batch in (False, True)
        )
        return one, many

    def selector(self, *, asks: bool = True) -> OracleSelector:
        """The oracle with its journal and its budget; one that does not ask knows stored answers.

        What stored answers do not label is then unlabelled.
        """
        options = self.options
        if not asks:
            planning = PlanningClient(options, self.journal.stored, Plan())
            return OracleSelector(options, share=self.share, journal=self.journal, client=planning)
        client = BudgetedClient(
            options.base_url,
            options.model,
            api_key_env=options.api_key_env,
            timeout=options.timeout,
            retries=options.retries,
            journal=self.journal,
            spending=self.account.spending,
        )
        return OracleSelector(options, share=self.share, journal=self.journal, client=client)

    def labels(self, source: LabelSource) -> list[StepLabel]:
        """What the labels file holds of one oracle."""
        if not self.sidecar.is_file():
            return []
        return [one for one in read_labels(self.sidecar) if same_source(one.source, source)]

    def asked(self, selections: Sequence[Selection], labels: Sequence[StepLabel]) -> Asked:
        """What was done since this job was made, and what it cost; ``labels`` are the oracle's."""
        now, before, spent = self.journal.summary(), self._before, self.account.spent()
        shares = shares_of(self.trajectories, selections, labels, self.share, self.terms.expected)
        return Asked(
            calls=now.calls - before.calls,
            cached=now.cached,
            retried=now.retried - before.retried,
            failed=now.failed - before.failed,
            unknown=now.unknown,
            prompt_tokens=now.prompt_tokens - before.prompt_tokens,
            completion_tokens=now.completion_tokens - before.completion_tokens,
            usd=self.account.spent_since(),
            usd_in_all=None if self.account.price is None else spent.usd,
            budget_usd=self.terms.budget_usd,
            unpriced=spent.unpriced,
            seconds=round(time.monotonic() - self._started, 1),
            environments=tuple(shares),
        )
