"""What a journal's calls have cost, and how long a model's answers are: read, never written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from atlas_tune.llm.journal_file import JournalFile
from atlas_tune.llm.limits import answer_limit
from atlas_tune.llm.prices import Price, PriceTable
from atlas_tune.llm.spending import most_tokens

_USAGES = """
SELECT attempt.model, request.body, attempt.usage, attempt.owner, attempt.state
FROM attempt JOIN request USING (key)
WHERE attempt.usage IS NOT NULL OR attempt.state IN ('answered', 'unknown')
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """USD of a journal's calls, and how many calls are not in it because nobody priced them."""

    usd: float
    unpriced: int


class JournalReader:
    """One journal file, which need not be there; never makes one."""

    def __init__(self, path: Path) -> None:
        self._file = JournalFile(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def answer_lengths(self, model: str) -> tuple[int, int]:
        """How many answers of a model are there, and their completion tokens together."""
        if not self._file.exists():
            return 0, 0
        with self._file.reading() as database:
            [row] = database.execute(
                "SELECT count(completion_tokens), total(completion_tokens) "
                "FROM attempt JOIN request USING (key) WHERE attempt.state = 'answered' "
                "AND (attempt.model = ? OR json_extract(body, '$.model') = ?)",
                (model, model),
            ).fetchall()
        return int(row[0]), int(row[1])

    def spent(self, model: str, prices: PriceTable) -> Spent:
        """What all calls that the journal holds have cost.

        A call is priced as the model that was asked (``model``, where nobody wrote it down). A
        call of unknown state, and an answer without usage, count at their worst.
        """
        if not self._file.exists():
            return Spent(0.0, 0)
        with self._file.reading() as database:
            rows = database.execute(_USAGES).fetchall()
        usd, unpriced = 0.0, 0
        for reported, text, usage, owner, state in rows:
            body: dict[str, Any] = json.loads(text) if text else {}
            price = prices.of(body.get("model") or model) or prices.of(reported or model)
            is_batch = owner.startswith("batch:")
            cost = None if price is None else _cost(price, usage, body, is_batch)
            if cost is None:
                unpriced += state != "unknown"
            else:
                usd += cost
        return Spent(usd, unpriced)


def _cost(price: Price, usage: str | None, body: Mapping[str, Any], is_batch: bool) -> float | None:
    if usage is not None:
        real = price.cost_of_usage(json.loads(usage), batch=is_batch)
        if real is not None:
            return real
    limit = answer_limit(body)
    if "messages" not in body or limit is None:
        return None
    return price.cost(most_tokens(body), limit, batch=is_batch)
