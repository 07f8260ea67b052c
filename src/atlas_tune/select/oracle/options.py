"""The settings of the oracle, as recipes write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from atlas_tune.errors import UsageError, nearest
from atlas_tune.select.oracle.answer import response_format
from atlas_tune.select.oracle.prompt import CRITICAL_KINDS
from atlas_tune.select.oracle.redact import user_pattern
from atlas_tune.trajectory.canonical import canonical_json

_TAKEN = {
    "model": "the oracle's own option of that name does",
    "temperature": "the oracle's own option of that name does",
    "max_tokens": "the oracle's own option of that name does",
    "messages": "the question does",
    "n": "the oracle's option 'samples' asks several times",
    "stream": "answers are read whole",
}
"""Fields of a request that ``params`` may not set, and who sets them."""


class OracleOptions(BaseModel):
    """The settings of the oracle. No model is preset: the paper's leave their API in 2027."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: str
    """The model to ask, as the server names it."""
    base_url: str = "https://api.openai.com/v1"
    """Where an OpenAI-compatible server listens, up to and with its /v1."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the API key; unset means that no key is sent."""
    structured: bool = True
    """Ask the server to decode under the answer's JSON schema; one that says it knows no schemas
    is asked without for the rest of the run. Answers are checked either way."""
    temperature: float | None = 0.0
    """Null leaves it to the server; some reasoning models refuse any value."""
    max_tokens: int | None = Field(4096, gt=0)
    """The longest answer; one that is cut short is asked for once more with twice as much."""
    params: dict[str, Any] = {}
    """Anything else for the request, such as reasoning_effort or max_completion_tokens."""
    samples: int = Field(1, gt=0)
    """How often each question is asked; steps that more than half of the answers name are
    critical. Needs a temperature above 0, or null. A seed in params goes up by one a sample."""
    kinds: dict[str, str] = {}
    """Other definitions of the four kinds, by name; those left out keep the prompt's own."""
    context_tokens: int | None = Field(None, gt=0)
    """What the model reads and writes at most. Observations are shortened until question and
    answer fit, the longest first. Null sends everything and lets the server refuse."""
    tokenizer: Path | None = None
    """The model's own tokenizer.json, or a folder with one, to count tokens with: against
    context_tokens and in a dry run. Null takes a quarter of the characters."""
    redact: bool = True
    """Replace what looks like an API key, token, private key or URL password before sending."""
    redact_patterns: list[str] = []
    """Regular expressions for more; a group named secret limits what is replaced."""
    concurrency: int = Field(8, gt=0)
    """How many trajectories are asked about at once."""
    timeout: float = Field(300.0, gt=0)
    """Seconds to wait for one answer."""
    retries: int = Field(6, ge=0)
    """How often a rate-limited, failing or unreachable server is asked again."""

    @field_validator("params", mode="before")
    @classmethod
    def _params_are_json(cls, params: Any) -> Any:
        if not isinstance(params, dict):
            return params
        for name in params:
            if not isinstance(name, str):
                raise UsageError(
                    f"The oracle's params need texts as names, not {name!r}: put it in quotes."
                )
            if name in _TAKEN:
                raise UsageError(f"The oracle's params may not set '{name}': {_TAKEN[name]}.")
        try:
            canonical_json(params)
        except (TypeError, ValueError) as error:
            raise UsageError(f"The oracle's params go into JSON, and {error}.") from error
        return params

    @field_validator("kinds")
    @classmethod
    def _kinds_are_the_papers(cls, kinds: dict[str, str]) -> dict[str, str]:
        for name, definition in kinds.items():
            if name not in CRITICAL_KINDS:
                raise UsageError(
                    f"The oracle's kinds redefine the paper's four and add none, because labels "
                    f"of a kind '{name}' could be compared with nobody's: "
                    f"{nearest(name, CRITICAL_KINDS)}"
                )
            if not definition.strip():
                raise UsageError(
                    f"The oracle's kinds leave '{name}' without words: write its definition or "
                    "leave it out, which keeps the prompt's own."
                )
        return {name: " ".join(definition.split()) for name, definition in kinds.items()}

    @field_validator("redact_patterns")
    @classmethod
    def _patterns_compile(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            user_pattern(pattern)
        return patterns

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.temperature == 0.0:
            raise UsageError(
                f"The oracle is to take {self.samples} samples, and at temperature 0 all answers "
                "are the same: set a temperature above 0, or null for the server's own."
            )
        if self.redact_patterns and not self.redact:
            raise UsageError(
                "The oracle's redact_patterns have no effect with redact: false: leave out one "
                "of the two."
            )
        return self

    @model_validator(mode="after")
    def _context_holds_a_question(self) -> Self:
        context, answer = self.context_tokens, self.answer_tokens
        if context is not None and context <= answer:
            raise UsageError(
                f"The oracle's context_tokens are {context:,}, and the longest answer alone may "
                f"have {answer:,}: raise context_tokens or lower max_tokens."
            )
        return self

    @property
    def answer_tokens(self) -> int:
        """What is kept free of ``context_tokens`` for the answer."""
        asked = self.params.get("max_completion_tokens", self.max_tokens)
        return asked if isinstance(asked, int) else 0

    def request_params(self, *, sample: int = 1, is_structured: bool = True) -> dict[str, Any]:
        """The fields of a request besides model and messages."""
        params: dict[str, Any] = dict(self.params)
        if self.temperature is not None:
            params["temperature"] = self.temperature
        if self.max_tokens is not None and "max_completion_tokens" not in params:
            params["max_tokens"] = self.max_tokens
        if self.structured and is_structured:
            params.setdefault("response_format", response_format())
        if sample > 1 and isinstance(params.get("seed"), int):
            # Else a server that honours the seed would give the same answer every time.
            params["seed"] += sample - 1
        return params
