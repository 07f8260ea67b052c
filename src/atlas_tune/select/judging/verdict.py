"""A judge on this machine: each step is asked about, and scored by logit(yes) − logit(no).

A small model that is asked for a list of critical steps answers near chance; what it leans towards
when it is asked of one step says more. All questions of a trajectory share the record, which is
read once (:mod:`.branching`): a trajectory costs one pass over its text and a few tokens a step.

"Yes" may be written in several ways. With Y and N the single tokens that write one of them,

    score = log Σ_{y∈Y} exp z_y − log Σ_{n∈N} exp z_n = log P(yes) − log P(no)

in nats, z being the logits of the first token of the answer. 0 is undecided; how far a judge leans
to one side altogether says nothing, so only the order of the steps of one run is used.

The paper's selector is GPT-4o and names steps (section 3); that a judge scores them one by one is
ours. A model that thinks before it answers gives no verdict in its first token: the label's reason
tells how much of the probability is yes or no at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints

from atlas_tune.agents.local_model import model_identity
from atlas_tune.errors import AtlasError
from atlas_tune.select.base import Alone, CannotLabel, Cost, SelectorOptions, labels_of_scores
from atlas_tune.select.judging.branching import BranchCount, BranchReader, shared_length
from atlas_tune.select.judging.verdict_answer import in_float32, yes_and_no_tokens
from atlas_tune.select.judging.verdict_prompt import Record, prompt_hash, question, record_of
from atlas_tune.select.likelihoods.likelihood import context_length
from atlas_tune.select.oracle.prompt import Part
from atlas_tune.select.oracle.shorten import SHORTEST, shortened
from atlas_tune.trajectory import LabelSource, StepLabel, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_VERSION = 1
_SLACK = 4
"""Tokens that the number of an earlier step may take more than that of the last one."""

KindName = Literal["plan_creation", "critical_observation", "critical_action", "self_correction"]
Definition = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class VerdictOptions(SelectorOptions):
    """The settings of the local judge."""

    model: str | None = None
    """The judge: a directory, a GGUF file or a hub id; null is the run's base model."""
    see: Literal["whole", "past"] = "whole"
    """Whether the judge sees the whole run, as the paper's oracle does, or only up to the step."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """The number format of the judge's weights."""
    context_tokens: int | None = Field(None, gt=0)
    """The most tokens of one question; null is what the model's settings say it reads. Observations
    are shortened until the question fits, the longest first."""
    branches: int = Field(8, gt=0)
    """How many questions about a whole run are read at once; each holds a copy of the cache."""
    kinds: dict[KindName, Definition] = Field(default_factory=dict)
    """Other definitions of the four kinds, by name; those left out keep the oracle's."""


class VerdictSelector(Alone):
    """Scores every step by how much a model leans to yes when asked whether it is critical."""

    name = "verdict"

    def __init__(self, options: VerdictOptions, model: str) -> None:
        """``model`` is the judge, whatever ``options`` say; it is loaded at the first label."""
        self.options = options
        self._model_name = model
        self._past_only = options.see == "past"
        # A run that is shown up to the step only grows from question to question.
        self._branches = 1 if self._past_only else options.branches
        self._kinds = {str(name): words for name, words in options.kinds.items()}
        # Branches are told because bfloat16 rounds a little otherwise in another batch.
        settings = f"see={options.see},precision={options.precision},branches={self._branches}"
        if options.context_tokens is not None:
            settings += f",context_tokens={options.context_tokens}"
        self.version = f"{_VERSION}+{settings}"

    @cached_property
    def source(self) -> LabelSource:
        """Name and settings, the judge's name and digest, and the prompt's hash."""
        return LabelSource(
            self.name,
            self.version,
            model=model_identity(self._model_name),
            prompt_hash=prompt_hash(self._kinds),
        )

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """A score for every agent step, in nats; the reason tells it and what was not shown.

        Raises:
            CannotLabel: the trajectory does not fit the model's context, even with its
                observations shortened.
            AtlasError: the model cannot be found, has no chat template, writes yes and no with
                the same first token, or gives no numbers.
        """
        record, notes = self._fitted(trajectory)
        yes, no = self._yes_and_no
        prompts = list(self._prompts(record))
        with in_float32(self._model, [*yes, *no]):
            logits_TV = self._reader.read(prompts, self._branches).double()
        if not bool(logits_TV.isfinite().all()):
            raise AtlasError(
                f"The model {self._model_name} gives logits that are not numbers: set precision to "
                "float32, or ask another model."
            )
        log_p_TV = logits_TV.log_softmax(-1)
        yes_T = log_p_TV[:, yes].logsumexp(-1)
        no_T = log_p_TV[:, no].logsumexp(-1)
        scores, reasons = {}, {}
        for step_id, log_yes, log_no in zip(
            record.step_ids, yes_T.tolist(), no_T.tolist(), strict=True
        ):
            scores[step_id] = log_yes - log_no
            reasons[step_id] = "; ".join([_reason(log_yes, log_no), *notes])
        return labels_of_scores(trajectory, self.source, scores, reasons)

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """The tokens that the judge reads, counted by its tokenizer; the model is not loaded."""
        reader = BranchCount(self._preamble)
        for trajectory in trajectories:
            try:
                record, _ = self._fitted(trajectory)
            except CannotLabel:
                continue
            reader.read(list(self._prompts(record)), self._branches)
        return Cost(read_tokens=reader.tokens)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from atlas_tune.agents.local_model import load_tokenizer

        return load_tokenizer(self._model_name)

    @cached_property
    def _model(self) -> PreTrainedModel:
        import torch

        from atlas_tune.agents.local_model import load_model

        model = load_model(self._model_name, getattr(torch, self.options.precision))
        if torch.cuda.is_available():
            model = model.to("cuda")  # type: ignore[arg-type]
        return model

    @cached_property
    def _reader(self) -> BranchReader:
        return BranchReader(self._model, self._preamble)

    @cached_property
    def _yes_and_no(self) -> tuple[list[int], list[int]]:
        return yes_and_no_tokens(self._tokenizer)

    @cached_property
    def _limit(self) -> int | None:
        """The most tokens of a question: the option's, and never more than the model reads."""
        known = [self.options.context_tokens, positions_of(self._model_name)]
        return min((limit for limit in known if limit is not None), default=None)

    @cached_property
    def _preamble(self) -> tuple[int, ...]:
        """The tokens with which every trajectory's prompts begin: up to the first mark."""
        one, other = (Record(mark, (Part("step 1", ""),), (1,)) for mark in ("0" * 16, "f" * 16))
        first, second = self._prompt(one, 1), self._prompt(other, 1)
        return tuple(first[: shared_length(first, second)])

    @cached_property
    def _special_tokens(self) -> frozenset[str]:
        added = self._tokenizer.added_tokens_decoder.values()
        special = {token.content for token in added if token.special}
        return frozenset(special | set(self._tokenizer.all_special_tokens))

    def _fitted(self, trajectory: Trajectory) -> tuple[Record, list[str]]:
        """The record as the judge is shown it, and what the labels say of the difference."""
        record = record_of(trajectory, self._special_tokens)
        notes = []
        if record.defused:
            notes.append(f"special tokens of the judge spelt out in the record: {record.defused}")
        limit = self._limit
        if limit is None:
            return record, notes
        last = record.step_ids[-1]

        def size(parts: Sequence[Part]) -> int:
            shown = Record(record.mark, tuple(parts), record.step_ids)
            return len(self._prompt(shown, last)) + _SLACK

        try:
            parts = shortened(record.parts, size, limit)
        except CannotLabel as error:
            raise CannotLabel(
                f"the judge {self._model_name} reads {limit:,} tokens, and a question about this "
                f"run needs more even with its observations cut to {SHORTEST} characters: raise "
                "context_tokens if that is what limits it, or ask a model that reads more"
            ) from error
        cut = [part.left_out for part in parts if part.left_out]
        if cut:
            observations = sum(part.is_observation for part in parts)
            notes.append(
                f"the judge saw {len(cut)} of {observations} observations shortened, "
                f"{sum(cut):,} characters left out"
            )
        return Record(record.mark, tuple(parts), record.step_ids, record.defused), notes

    def _prompts(self, record: Record) -> Iterator[list[int]]:
        return (self._prompt(record, step_id) for step_id in record.step_ids)

    def _prompt(self, record: Record, step_id: int) -> list[int]:
        """The tokens of a question, up to where the judge is to answer."""
        from atlas_tune.agents.chat_template import render_text

        text = question(record, step_id, past_only=self._past_only, kinds=self._kinds)
        rendered = render_text(
            self._tokenizer, [{"role": "user", "content": text}], generation_prompt=True
        )
        ids: list[int] = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return ids


def positions_of(model: str) -> int | None:
    """How many tokens a model reads, by its settings; None where they do not say.

    The weights are not loaded. A directory of adapters says what their base model does.
    """
    from transformers import AutoConfig

    from atlas_tune.agents.local_model import resolve_model

    place = Path(resolve_model(model, weights=False))
    adapters = place / "adapter_config.json"
    if adapters.is_file():
        return positions_of(json.loads(adapters.read_text())["base_model_name_or_path"])
    return context_length(AutoConfig.from_pretrained(place))


def _reason(log_yes: float, log_no: float) -> str:
    """
    >>> _reason(-0.5, -1.5)
    'yes over no by +1.00 nats; 83% of the next token is yes or no'
    """
    share = exp(log_yes) + exp(log_no)
    return (
        f"yes over no by {log_yes - log_no:+.2f} nats; {share:.0%} of the next token is yes or no"
    )
