"""How a policy is made where it is needed: one model, any seed and temperature.

Nothing here imports torch before a policy is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from atlas_tune.agents.local_model import model_identity
from atlas_tune.agents.policy import Policy
from atlas_tune.errors import AtlasError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from atlas_tune.agents.local_policy import LocalPolicy


class ConversationTooLong(AtlasError):
    """A conversation that does not fit into the model of a policy; others may."""


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

    def __init__(self, model: str, max_new_tokens: int, precision: str) -> None:
        """``model`` is a hub id, a directory or a GGUF file; ``precision`` a torch dtype's name."""
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.precision = precision
        self._identity: str | None = None
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    @property
    def identity(self) -> str:
        """The model's name and the digest of its weights, which are read once for it."""
        if self._identity is None:
            self._identity = model_identity(self.model)
        return self._identity

    def __call__(self, seed: int, temperature: float) -> LocalPolicy:
        """A policy of this model that refuses conversations beyond the model's context.

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
        )
