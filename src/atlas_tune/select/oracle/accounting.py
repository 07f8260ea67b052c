"""What an oracle's calls may cost and have cost, against a budget that outlives a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atlas_tune.errors import UsageError
from atlas_tune.llm.journal_reader import JournalReader, Spent
from atlas_tune.llm.prices import PriceTable, read_prices
from atlas_tune.llm.spending import Spending
from atlas_tune.select.oracle.counting import counter_of
from atlas_tune.select.oracle.options import OracleOptions
from atlas_tune.select.shares import Range

_NOTHING = Spent(0.0, 0)


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms oracles are asked: those of one command, or of all arms of a recipe."""

    budget_usd: float | None = None
    """The most to spend; null is no limit."""
    prices: Path | None = None
    """A file of prices that take precedence over the shipped ones."""
    expected: Mapping[str, Range] = field(default_factory=dict)
    """By environment, the share of selected steps that is no reason for alarm."""

    def check(self, options: OracleOptions) -> None:
        """Find out before the first hour of work what would end an oracle at its first call.

        Raises:
            UsageError: the prices cannot be read, a budget has no price to count with or no
                limit on the answers, or the oracle's tokenizer is not there.
        """
        price = read_prices(self.prices).of(options.model)
        Spending(price, self.budget_usd)
        if self.budget_usd is not None and not options.answer_tokens:
            raise UsageError(
                "A budget in USD needs a limit on the answers: set the oracle's max_tokens."
            )
        counter_of(options.tokenizer)


class Account:
    """The money of one oracle: what its model costs, and what journals say was spent before."""

    def __init__(
        self, terms: Terms, model: str, journals: Sequence[Path], *, batch: bool = False
    ) -> None:
        """``journals`` hold all calls that count against the budget; the first is the oracle's own.

        Calls of a journal that say no model are priced as those of ``model``. ``batch`` counts
        new calls at the price of a batch.

        Raises:
            UsageError: a budget is given and no price is known, or the prices cannot be read.
        """
        self.model = model
        self.terms = terms
        self.table: PriceTable = read_prices(terms.prices)
        self.price = self.table.of(model)
        self._journals = tuple(journals)
        self.before = self.spent()
        self._own_before = self.spent_here()
        # The budget is the job's, not the run's: a killed run that goes on has no second one.
        self.spending = Spending(
            self.price, terms.budget_usd, spent_usd=self.before.usd, batch=batch
        )

    def spent(self) -> Spent:
        """What all calls have cost up to now."""
        found = [self._spent(journal) for journal in self._journals]
        return Spent(sum(one.usd for one in found), sum(one.unpriced for one in found))

    def spent_here(self) -> Spent:
        """What the calls in the oracle's own journal have cost up to now."""
        return self._spent(self._journals[0]) if self._journals else _NOTHING

    def spent_since(self) -> float | None:
        """USD that the oracle has spent since this account was opened; None without a price."""
        return None if self.price is None else self.spent_here().usd - self._own_before.usd

    def answer_lengths(self) -> tuple[int, int]:
        """How many answers of the model its own journal holds, and their completion tokens."""
        if not self._journals:
            return 0, 0
        with JournalReader(self._journals[0]) as reader:
            return reader.answer_lengths(self.model)

    def _spent(self, journal: Path) -> Spent:
        with JournalReader(journal) as reader:
            return reader.spent(self.model, self.table)
