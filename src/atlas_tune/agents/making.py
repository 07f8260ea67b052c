"""How a policy is made where it is needed: one model, any seed and temperature.

Nothing here imports torch or an HTTP library before a policy is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlsplit

from atlas_tune.agents.history import Overlong
from atlas_tune.agents.local_model import model_identity
from atlas_tune.agents.policy import Policy
from atlas_tune.errors import AtlasError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from atlas_tune.agents.http_policy import HttpPolicy, ReplySettings
    from atlas_tune.agents.local_policy import LocalPolicy
    from atlas_tune.llm import Journal


class ConversationTooLong(AtlasError):
    """A conversation that does not fit into the model of a policy; others may.

    ``keys`` names the episodes that do not fit, where the policy could tell; a call without them
    goes on.
    """

    def __init__(self, message: str, keys: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.keys = keys


class PolicyMaker(Protocol):
    """Makes policies that differ in how they draw, and in nothing else."""

    @property
    def identity(self) -> str:
        """What decides the answers besides seed and temperature, for the source of labels."""
        ...

    def __call__(self, seed: int, temperature: float) -> Policy:
        """A policy; temperature 0 is greedy. Its randomness follows :mod:`.streams`.

        Raises:
            AtlasError: the model cannot be had.
        """
        ...


class LocalPolicies:
    """Policies that share one model on this machine, loaded when the first one is made."""

    def __init__(
        self, model: str, max_new_tokens: int, precision: str, *, overlong: Overlong = "refuse"
    ) -> None:
        """
        Args:
            model: a hub id, a directory or a GGUF file.
            max_new_tokens: the longest reply.
            precision: a torch dtype's name.
            overlong: what is done with a conversation beyond the model's context. Selectors
                compare runs as they were and so refuse it; rollouts had better drop.
        """
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.precision = precision
        self.overlong = overlong
        self._identity: str | None = None
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    @property
    def identity(self) -> str:
        """The model's name and the digest of its weights, which are read once for it."""
        if self._identity is None:
            self._identity = model_identity(self.model)
        return self._identity

    def __call__(self, seed: int, temperature: float) -> LocalPolicy:
        """A policy of this model, which knows the model's context.

        Raises:
            AtlasError: the model cannot be found, or has no chat template.
        """
        from atlas_tune.agents.local_policy import LocalPolicy, load_policy

        if self._loaded is None:
            policy = load_policy(self.model, self.max_new_tokens, self.precision)
            self._loaded = (policy.model, policy.tokenizer)
        model, tokenizer = self._loaded
        return LocalPolicy(
            model,
            tokenizer,
            self.max_new_tokens,
            temperature=temperature,
            seed=seed,
            context=getattr(
                model.config.get_text_config(decoder=True), "max_position_embeddings", None
            ),
            overlong=self.overlong,
        )


class HttpPolicies:
    """Policies that share one model on a server: its connections, budget, journal and count.

    >>> HttpPolicies("http://localhost:8080/v1", "qwen").identity
    'qwen at localhost:8080'
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        settings: ReplySettings | None = None,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 300.0,
        retries: int = 6,
        journal: Journal | None = None,
        prices: Path | None = None,
        budget_usd: float | None = None,
    ) -> None:
        """
        Args:
            base_url: where an OpenAI-compatible server listens, up to and with its /v1.
            model: as the server names it.
            settings: how replies are asked for.
            api_key_env: the environment variable that holds the key; unset sends none.
            timeout: seconds that one reply may take.
            retries: how often what a little patience mends is tried again.
            journal: keeps every reply, so that a killed run pays for none twice.
            prices: a file of prices beside the shipped ones.
            budget_usd: what the replies of this object may cost at most.

        Raises:
            UsageError: ``base_url`` is no address, the prices cannot be read, or there is a
                budget and no price for the model.
        """
        from atlas_tune.agents.http_policy import ReplySettings
        from atlas_tune.agents.usage import UsageCount
        from atlas_tune.llm import ChatClient, Gate
        from atlas_tune.llm.prices import read_prices
        from atlas_tune.llm.spending import Spending

        self.settings = settings or ReplySettings()
        price = read_prices(prices).of(model)
        spending = Spending(price, budget_usd)
        self.client = ChatClient(
            base_url,
            model,
            api_key_env=api_key_env,
            timeout=timeout,
            retries=retries,
            journal=journal,
            gate=Gate(self.settings.concurrency),
            spending=spending,
        )
        self.usage = UsageCount(spending if price is not None else None)

    @property
    def identity(self) -> str:
        """The model's name and its server; what the server runs under that name nobody can say."""
        return f"{self.client.model} at {urlsplit(self.client.url).netloc}"

    def __call__(self, seed: int, temperature: float) -> HttpPolicy:
        """A policy of this model.

        Raises:
            UsageError: the temperature is below 0.
        """
        from atlas_tune.agents.http_policy import HttpPolicy

        return HttpPolicy(
            self.client, self.settings, temperature=temperature, seed=seed, usage=self.usage
        )

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
