"""A client whose budget, once spent, leaves the rest unlabelled instead of ending the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atlas_tune.llm import ChatAnswer, ChatClient, Message
from atlas_tune.llm.spending import BudgetSpent
from atlas_tune.select.base import CannotLabel


class BudgetedClient(ChatClient):
    """Asks while there is money; stored answers are given with none left, too."""

    def complete(
        self,
        messages: Sequence[Message],
        *,
        key: str | None = None,
        enlarge: bool = True,
        largest: int | None = None,
        **params: Any,
    ) -> ChatAnswer:
        """As :meth:`ChatClient.complete`.

        Raises:
            CannotLabel: one more call could overrun the budget.
            ChatError: as there.
        """
        try:
            return super().complete(messages, key=key, enlarge=enlarge, largest=largest, **params)
        except BudgetSpent as error:
            raise CannotLabel(f"budget: {error}") from error
