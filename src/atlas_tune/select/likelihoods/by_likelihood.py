"""What the selectors share that read likelihoods: settings, model, identity and cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path

from atlas_tune.agents.local_model import load_tokenizer, model_identity, resolve_model
from atlas_tune.select.base import Alone, CannotLabel, Cost, SelectorOptions
from atlas_tune.select.likelihoods.likelihood import (
    StepScorer,
    Tokens,
    check_length,
    context_length,
    load_scorer,
)
from atlas_tune.select.likelihoods.passages import Passage, passages_of, tokens_read
from atlas_tune.trajectory import LabelSource, Trajectory
from atlas_tune.tune.settings import Precision


class LikelihoodOptions(SelectorOptions):
    """The settings of every selector that reads likelihoods."""

    model: str | None = None
    """The base policy π₀: a hub id, a directory or a GGUF file; the run's own unless named."""
    tokens: Tokens = "all"
    """``all``: every supervised token of a step, its end of turn with it; ``action``: those of the
    line after ``Action:`` and of tool calls alone."""
    precision: Precision = "float32"
    """The arithmetic of the forward pass; softmax and means are float32 at least."""


class Likelihoods(Alone):
    """What selectors share that read the base policy's likelihoods."""

    def __init__(self, model: str, tokens: Tokens, precision: Precision) -> None:
        self.model, self.tokens, self.precision = model, tokens, precision

    @cached_property
    def scorer(self) -> StepScorer:
        """The base policy, loaded at first use."""
        return load_scorer(self.model, self.precision)

    @cached_property
    def source(self) -> LabelSource:
        """Name, version, and the model by its name and the digest of its weights."""
        return LabelSource(self.name, self.version, model=model_identity(self.model))


def readable_passages(
    model: str,
    trajectories: Iterable[Trajectory],
    tellings: Callable[[Trajectory], Sequence[str]] = lambda trajectory: ("",),
) -> Iterator[list[Passage]]:
    """What a scorer would read of each trajectory that it can read, without loading the model.

    Args:
        model: its tokenizer and configuration are loaded.
        trajectories: those that cannot be labelled are passed over.
        tellings: what the opening gets told, once for every reading of the trajectory.

    Raises:
        AtlasError: the model cannot be found, or its tokenizer has no chat template.
    """
    tokenizer, limit = load_tokenizer(model), _limit_of(model)
    for trajectory in trajectories:
        with suppress(CannotLabel):
            passages = [
                passage
                for told in tellings(trajectory)
                for passage in passages_of(tokenizer, trajectory, told)
            ]
            check_length(passages, limit)
            yield passages


def reading_cost(passages: Iterable[list[Passage]]) -> Cost:
    """The tokens that one scorer reads that is given all these passages in order."""
    return Cost(read_tokens=tokens_read(chain.from_iterable(passages)))


def _limit_of(model: str) -> int | None:
    from transformers import AutoConfig

    place = Path(resolve_model(model, weights=False))
    # A directory of adapters has none: its model's limit is told when it is loaded.
    if not (place / "config.json").is_file():
        return None
    return context_length(AutoConfig.from_pretrained(place))
