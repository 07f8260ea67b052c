"""What a plan would cost: its tokens counted or estimated, and the way it was done said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas_tune.llm.limits import answer_limit
from atlas_tune.llm.prices import Price
from atlas_tune.select.oracle.counting import (
    CHARACTERS_PER_TOKEN,
    CountTokens,
    TokenizerCount,
    counter_of,
)
from atlas_tune.select.oracle.plan import Plan, Planned
from atlas_tune.select.oracle.selector import ATTEMPTS

ANSWER_TOKENS = 300
"""What an answer is taken to be long where none of this model is known: a plan of a few sub-goals
and a few steps with reason and quote. A model that thinks before it answers needs several times
as much."""

_PER_MESSAGE = 4
"""Tokens that a chat template puts around a message, about."""
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Estimate:
    """What asking a plan's requests would take. USD is null where it is unknown."""

    requests: int
    prompt_tokens: int
    counted_by: str
    """How ``prompt_tokens`` were found."""
    completion_tokens: int
    """What is expected of the answers together."""
    completion_by: str
    """How ``completion_tokens`` were found."""
    worst_prompt_tokens: int | None
    worst_completion_tokens: int | None
    """If every answer fills its limit, is asked for again with twice the limit, and so is the
    second answer; null where answers have no limit."""
    usd: float | None
    worst_usd: float | None


def estimate(
    plan: Plan,
    price: Price | None,
    *,
    tokenizer: Path | None = None,
    answers: tuple[int, int] = (0, 0),
    batch: bool = False,
) -> Estimate:
    """The tokens and the cost of a plan.

    Args:
        plan: the requests.
        price: of the model; None where it is unknown.
        tokenizer: a ``tokenizer.json`` or a folder with one, to count with; else a quarter of
            the characters is taken.
        answers: how many answers of this model are known, and their completion tokens.
        batch: whether they would be asked in a batch.

    Raises:
        UsageError: there is no tokenizer at that place.
    """
    count = counter_of(tokenizer)
    known, known_tokens = answers
    expected = known_tokens / known if known else float(ANSWER_TOKENS)
    prompts = _prompt_tokens(plan.requests, count)
    usd = worst_usd = None if price is None else 0.0
    completions = 0.0
    worst_prompt: int | None = 0
    worst_completion: int | None = 0
    for request, prompt in zip(plan.requests, prompts, strict=True):
        limit = answer_limit(request.body)
        completion = expected if limit is None else min(expected, limit)
        completions += completion
        usd = _plus(usd, _cost(price, prompt, completion, batch))
        if limit is None:
            worst_prompt = worst_completion = worst_usd = None
            continue
        for largest in (limit, 2 * limit):
            worst_prompt = _count(worst_prompt, ATTEMPTS * prompt)
            worst_completion = _count(worst_completion, ATTEMPTS * largest)
            each = _cost(price, prompt, largest, batch)
            worst_usd = _plus(worst_usd, None if each is None else ATTEMPTS * each)
    return Estimate(
        requests=len(plan.requests),
        prompt_tokens=sum(prompts),
        counted_by=(
            f"estimated: characters / {CHARACTERS_PER_TOKEN}"
            if tokenizer is None
            else f"counted with {tokenizer}"
        ),
        completion_tokens=round(completions),
        completion_by=(
            f"the mean of {known} stored answers"
            if known
            else f"assumed: {ANSWER_TOKENS} an answer, more for a model that thinks"
        ),
        worst_prompt_tokens=worst_prompt,
        worst_completion_tokens=worst_completion,
        usd=usd,
        worst_usd=worst_usd,
    )


def _prompt_tokens(requests: Sequence[Planned], count: CountTokens) -> list[int]:
    found = []
    for start in range(0, len(requests), _AT_ONCE):
        some = [_texts(request.body) for request in requests[start : start + _AT_ONCE]]
        texts_of_all = [text for texts in some for text in texts]
        # A tokenizer takes many texts at once, each in a thread of its own.
        counts = iter(
            count.all(texts_of_all)
            if isinstance(count, TokenizerCount)
            else map(count, texts_of_all)
        )
        for texts in some:
            found.append(sum(next(counts) + _PER_MESSAGE for _ in texts))
    return found


def _texts(body: Mapping[str, Any]) -> list[str]:
    """What a model reads of a request; servers put a schema into the question too."""
    texts = [str(message["content"]) for message in body["messages"]]
    if "response_format" in body:
        texts.append(str(body["response_format"]))
    return texts


def _cost(price: Price | None, prompt: float, completion: float, batch: bool) -> float | None:
    return None if price is None else price.cost(prompt, completion, batch=batch)


def _plus(total: float | None, more: float | None) -> float | None:
    """A sum of which one unknown part makes the whole unknown."""
    return None if total is None or more is None else total + more


def _count(total: int | None, more: int) -> int | None:
    return None if total is None else total + more
