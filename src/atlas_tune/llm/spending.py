"""A budget in USD that calls in flight cannot overrun: each reserves its worst case first."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Self

from atlas_tune.errors import UsageError
from atlas_tune.llm.errors import ChatError
from atlas_tune.llm.limits import answer_limit
from atlas_tune.llm.prices import Price, told

_PER_MESSAGE = 16
"""Tokens that a chat template may put around a message: role, marks, line breaks."""


class BudgetSpent(ChatError):
    """One more call could cost more than is left of the budget; it was not made."""


class Spending:
    """What is spent and what calls in flight may still cost, of one budget; thread-safe.

    ``budget_usd`` null keeps the count without a limit.
    """

    def __init__(
        self,
        price: Price | None,
        budget_usd: float | None = None,
        *,
        spent_usd: float = 0.0,
        batch: bool = False,
    ) -> None:
        """``spent_usd`` was spent of the same budget before, by a run that this one goes on from.

        Raises:
            UsageError: there is a budget and no price to count it with.
        """
        if budget_usd is not None and not budget_usd > 0:
            raise UsageError(f"A budget in USD is a number above 0, not {budget_usd:g}.")
        if budget_usd is not None and price is None:
            raise UsageError(
                "A budget in USD needs the price of the model, and none is known: write it down "
                "for --prices (in a recipe: oracle.prices), or set no budget."
            )
        if batch and budget_usd is not None and price is not None and price.batch is None:
            raise UsageError(
                "A budget in USD needs the price of a batch, and none is known for this model: "
                "write 'batch' down for --prices, or set no budget."
            )
        self.budget_usd = budget_usd
        self.unpriced = 0
        """Answered calls whose usage or price nobody told; without a budget they count nothing."""
        self._price = price
        self._batch = batch
        self._spent = spent_usd
        self._reserved = 0.0
        self._lock = threading.Lock()

    @property
    def spent_usd(self) -> float:
        """What answered calls cost, and the worst case of those whose fate is unknown."""
        with self._lock:
            return self._spent

    @property
    def left_usd(self) -> float | None:
        """What new calls may still cost; None without a budget."""
        if self.budget_usd is None:
            return None
        with self._lock:
            return self.budget_usd - self._spent - self._reserved

    def call(self, body: Mapping[str, Any]) -> Call:
        """Reserve the worst case of one request, to be used as a context manager around it.

        Raises:
            BudgetSpent: it could cost more than is left, counting the calls in flight.
            UsageError: there is a budget and no limit on the answer, so no worst case.
        """
        worst = 0.0
        if self._price is not None:
            limit = answer_limit(body)
            if limit is None and self.budget_usd is not None:
                raise UsageError(
                    "A budget in USD needs a limit on the answers: set the oracle's max_tokens."
                )
            worst = self._price.cost(most_tokens(body), limit or 0, batch=self._batch) or 0.0
        with self._lock:
            if self.budget_usd is not None:
                left = self.budget_usd - self._spent - self._reserved
                if worst > left:
                    raise BudgetSpent(
                        f"The budget of {told(self.budget_usd)} is spent: {told(max(left, 0.0))} "
                        f"is left and one more call may cost {told(worst)}. Raise --budget-usd, "
                        "or oracle.budget_usd in a recipe, and run again."
                    )
            self._reserved += worst
        return Call(self, worst)

    def _settle(self, worst: float, usage: Mapping[str, Any]) -> None:
        real = None if self._price is None else self._price.cost_of_usage(usage, batch=self._batch)
        with self._lock:
            self._reserved -= worst
            # A server that reports no usage is counted at its worst, which cannot be too low.
            self._spent += worst if real is None else real
            self.unpriced += real is None

    def _release(self, worst: float, *, is_paid: bool) -> None:
        with self._lock:
            self._reserved -= worst
            self._spent += worst if is_paid else 0.0


class Call:
    """One reservation. Left without a word, it is spent at its worst: the server may have worked.

    After ``settle`` or ``release`` the reservation is gone and both do nothing more.
    """

    def __init__(self, spending: Spending, worst_usd: float) -> None:
        self.worst_usd = worst_usd
        self._spending: Spending | None = spending

    def settle(self, usage: Mapping[str, Any]) -> None:
        """The call was answered; ``usage`` is what the server reports."""
        spending, self._spending = self._spending, None
        if spending is not None:
            spending._settle(self.worst_usd, usage)

    def release(self) -> None:
        """The call was refused or never made: nothing is to be paid for it."""
        spending, self._spending = self._spending, None
        if spending is not None:
            spending._release(self.worst_usd, is_paid=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        spending, self._spending = self._spending, None
        if spending is not None:
            spending._release(self.worst_usd, is_paid=True)


def most_tokens(body: Mapping[str, Any]) -> int:
    """More tokens than any byte-level tokenizer makes of a request's question: one a byte.

    Far above the truth (about four bytes a token in English), but a budget must hold, and a
    reservation is given back as soon as its call is answered. Servers put schemas and tools into
    the question too, so every other field counts as it is written.
    """
    count = 0
    for name, value in body.items():
        if name == "messages":
            for message in value:
                text = str(message.get("content", ""))
                count += len(text.encode("utf-8", "surrogatepass")) + _PER_MESSAGE
                # The calls of tools are part of the question too.
                more = {k: v for k, v in message.items() if k not in ("role", "content")}
                count += len(json.dumps(more)) if more else 0
        else:
            count += len(json.dumps(value))
    return count
