"""One question per trajectory to a language model, its answer made into labels."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from atlas_tune.llm import ChatAnswer, ChatClient, RequestRefused, WrongServer, request_key
from atlas_tune.select.base import CannotLabel, Cost
from atlas_tune.select.oracle.answer import CriticalStep, Unusable, read_answer
from atlas_tune.select.oracle.counting import (
    CountTokens,
    counter_of,
    estimated_tokens,
    identity_of,
)
from atlas_tune.select.oracle.options import OracleOptions
from atlas_tune.select.oracle.prompt import messages_of, prompt_hash
from atlas_tune.select.oracle.shown import Shown, show
from atlas_tune.select.oracle.vote import votes_of
from atlas_tune.trajectory import (
    PAPER_BUDGET,
    Kind,
    LabelSource,
    StepLabel,
    Trajectory,
)
from atlas_tune.trajectory.canonical import canonical_json

if TYPE_CHECKING:
    from atlas_tune.llm.journal import Journal

__all__ = ["OracleOptions", "OracleSelector"]

ATTEMPTS = 2
"""One question, and one more with the reason why the first answer could not be used."""

_VERSION = 2
"""Of how a record is shown and an answer is read, besides the prompt, which has its hash."""

_NO_SCHEMAS = ("response_format", "response format", "json_schema", "json schema")
"""Of these words, one stands in the refusals of servers that know no JSON schemas."""


class _CutShort(Unusable):
    """An answer that ended at its limit; the same question would end there again."""


class OracleSelector:
    """Asks a model once per trajectory for at most ``share`` of its steps."""

    name = "oracle"
    share: float | None = None

    def __init__(
        self,
        options: OracleOptions,
        *,
        share: float = PAPER_BUDGET,
        journal: Journal | None = None,
        client: ChatClient | None = None,
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
        count_tokens: CountTokens | None = None,
    ) -> None:
        """``journal`` keeps the raw answers and is told which of them can be used.

        ``client`` replaces the one that ``options`` make and that writes to the journal.
        ``nonce`` marks our own lines in the prompt; it must be unguessable outside of tests.
        ``count_tokens`` measures texts against ``context_tokens``, instead of the option
        ``tokenizer`` or, without one, an estimate.

        Raises:
            UsageError: there is no tokenizer where the option says, or ``base_url`` is no address.
        """
        self.options = options
        self.concurrency = options.concurrency
        self._share = share
        self._journal = journal
        self._nonce = nonce
        self._count = count_tokens or counter_of(options.tokenizer)
        self._client = client or ChatClient(
            options.base_url,
            options.model,
            api_key_env=options.api_key_env,
            timeout=options.timeout,
            retries=options.retries,
            journal=journal,
        )
        self._knows_schemas = True

    @property
    def version(self) -> str:
        """What decides the answer besides model and prompt: the budget, which is in the question,
        and the request's settings at its server. How patiently it is asked has no part in it."""
        options = self.options
        temperature = options.temperature
        sampling = "" if temperature is None else f",temperature={temperature:g}"
        if options.samples > 1:
            sampling += f",samples={options.samples}"
        request = {
            "base_url": options.base_url.rstrip("/"),
            "context_tokens": options.context_tokens,
            "redact": [options.redact, *options.redact_patterns],
            **options.request_params(),
        }
        if options.context_tokens is not None and self._count is not estimated_tokens:
            request["count_tokens"] = identity_of(self._count)
        digest = hashlib.sha256(canonical_json(request).encode("ascii")).hexdigest()
        return f"{_VERSION}+budget={self._share:g}{sampling},request={digest[:8]}"

    @property
    def source(self) -> LabelSource:
        """Selector, version, model and the hash of the prompt."""
        return LabelSource(
            self.name,
            self.version,
            model=self.options.model,
            prompt_hash=prompt_hash(self.options.kinds),
        )

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """The critical steps in the model's order, then ``Kind.NONE`` for all others.

        With several samples the most named come first, and each label's score is the share of
        the usable samples that name its step.

        Raises:
            CannotLabel: the server refuses this trajectory, it does not fit ``context_tokens``,
                or of the samples not more than half are usable (both answers to each of the
                others could not be used) or agree on a step.
            ChatError: the server cannot be asked at all.
        """
        shown = show(trajectory, self.options, self._share, self._nonce, self._count)
        samples = self._samples(shown)
        if self.options.samples == 1:
            return self._labels(shown, samples[0], {}, shown.notes)
        votes = votes_of([steps[: shown.budget] for steps in samples])
        critical = [vote.step for vote in votes if vote.is_majority]
        if not critical:
            raise CannotLabel(
                f"no step is named by more than half of {len(samples)} answers of "
                f"{self.options.model}"
            )
        notes = [*shown.notes]
        if unusable := self.options.samples - len(samples):
            notes.append(f"unusable samples: {unusable} of {self.options.samples}")
        if over := sum(len(steps) > shown.budget for steps in samples):
            notes.append(f"samples over the budget, of which the first steps counted: {over}")
        shares = {vote.step.step_id: vote.share for vote in votes}
        return self._labels(shown, critical, shares, notes)

    def cost(self, trajectories: Iterable[Trajectory]) -> Cost:
        """The first questions' tokens and the estimated answers'; what the journal has is free.

        Requests, prices and worst cases are told by the dry run of ``select``.
        """
        from atlas_tune.select.oracle.estimate import estimate
        from atlas_tune.select.oracle.plan import plan_requests

        stored = (lambda key: None) if self._journal is None else self._journal.stored
        plan = plan_requests(trajectories, self.options, self._share, look=stored)
        found = estimate(plan, None, tokenizer=self.options.tokenizer)
        return Cost(read_tokens=found.prompt_tokens, written_tokens=found.completion_tokens)

    def _samples(self, shown: Shown) -> list[list[CriticalStep]]:
        """The usable samples; more than half of those asked for."""
        wanted = self.options.samples
        usable: list[list[CriticalStep]] = []
        problems: list[str] = []
        stopped: CannotLabel | None = None
        for sample in range(1, wanted + 1):
            try:
                usable.append(self._sample(shown, sample))
            except _CutShort as error:
                problems.append(str(error))
            except Unusable as error:
                problems.append(
                    f"{ATTEMPTS} answers of {self.options.model} were unusable: {error}"
                )
            except RequestRefused as error:
                raise CannotLabel(str(error)) from error
            except CannotLabel as error:
                # The client of a plan says so of what it notes; it is to see all samples.
                stopped = stopped or error
            if 2 * len(problems) >= wanted:
                break
        if stopped is not None:
            raise stopped
        if 2 * len(usable) <= wanted:
            of = f"{len(problems)} of {wanted} samples failed; " if wanted > 1 else ""
            raise CannotLabel(f"{of}{problems[-1]}")
        return usable

    def _sample(self, shown: Shown, sample: int) -> list[CriticalStep]:
        complaint: str | None = None
        for attempt in range(ATTEMPTS):
            key, answer = self._ask(shown, sample, complaint)
            try:
                if answer.finish_reason == "length":
                    raise self._cut_short(shown)
                steps = read_answer(answer.text, shown.written).critical_steps
            except Unusable as unusable:
                complaint = str(unusable)
                if self._journal is not None:
                    self._journal.rejected(key, complaint)
                if isinstance(unusable, _CutShort) or attempt == ATTEMPTS - 1:
                    raise
            else:
                if self._journal is not None:
                    self._journal.accepted(key)
                return steps
        raise AssertionError("the last attempt returns or raises")

    def _cut_short(self, shown: Shown) -> _CutShort:
        options = self.options
        said = f"the answer of {options.model} is cut off at its limit"
        if shown.room is None or shown.room >= 2 * options.answer_tokens:
            return _CutShort(f"{said}: raise the oracle's max_tokens")
        return _CutShort(
            f"{said}, and beside the question {shown.room:,} tokens of the oracle's "
            "context_tokens are free for one: raise context_tokens if the model reads more, or "
            "max_tokens, which shows it less of long observations"
        )

    def _ask(self, shown: Shown, sample: int, complaint: str | None) -> tuple[str, ChatAnswer]:
        """The key of a question, and its answer."""
        params = self.options.request_params(sample=sample, is_structured=self._knows_schemas)
        key = self._key(shown, params, sample, complaint)
        messages = messages_of(
            shown.parts, shown.budget, shown.nonce, complaint, self.options.kinds
        )
        try:
            return key, self._client.complete(messages, key=key, largest=shown.room, **params)
        except (RequestRefused, WrongServer) as error:
            said = str(error).lower()
            is_ours = "response_format" in params and "response_format" not in self.options.params
            if not is_ours or not any(words in said for words in _NO_SCHEMAS):
                raise
            self._knows_schemas = False
        return self._ask(shown, sample, complaint)

    def _key(self, shown: Shown, params: dict[str, Any], sample: int, complaint: str | None) -> str:
        """The key of a question: equal ones share it, though each has a nonce of its own."""
        messages = messages_of(shown.parts, shown.budget, "", complaint, self.options.kinds)
        where = {"base_url": self.options.base_url.rstrip("/"), "sample": sample}
        return request_key(self.options.model, messages, {"params": params, **where})

    def _labels(
        self,
        shown: Shown,
        critical: Sequence[CriticalStep],
        shares: dict[int, float],
        notes: Sequence[str],
    ) -> list[StepLabel]:
        """Labels of all agent steps; ``shares`` is empty where nothing was voted on."""
        source = self.source
        note = "; ".join(notes)
        labels = []
        for place, step in enumerate(critical, start=1):
            kind, reason = step.kind, step.reason
            if place > shown.budget:
                # The budget is a ceiling of the method, and the model's own order says who goes.
                kind = Kind.NONE
                reason = f"over the budget of {shown.budget}: {place}. {step.kind}: {reason}"
            labels.append(
                StepLabel(
                    shown.trajectory_id,
                    step.step_id,
                    kind,
                    source,
                    score=shares.get(step.step_id),
                    reason=f"{reason} ({note})" if note else reason,
                    quote=step.quote,
                )
            )
        named = {label.step_id for label in labels}
        return labels + [
            StepLabel(
                shown.trajectory_id,
                step_id,
                Kind.NONE,
                source,
                score=shares.get(step_id, 0.0) if shares else None,
                reason=note or None,
            )
            for step_id in shown.written
            if step_id not in named
        ]
