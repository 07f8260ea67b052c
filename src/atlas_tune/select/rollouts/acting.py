"""What selectors share whose base policy acts: its settings, and how it is made."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from atlas_tune.agents.making import LocalPolicies, PolicyMaker
from atlas_tune.select.base import Alone, SelectorOptions
from atlas_tune.trajectory import LabelSource
from atlas_tune.tune.settings import Precision

_NOT_IN_VERSION = {"model", "policy", "batch_size"}


class ActingOptions(SelectorOptions):
    """The settings of every selector whose policy writes replies."""

    seed: int = 0
    """Of the samples; the same seed gives the same replies in any batch."""
    max_new_tokens: int = Field(256, ge=1)
    """The longest reply, in tokens; a longer one is cut there and may then hold no action."""
    batch_size: int = Field(32, ge=1)
    """Conversations that are answered at once. It decides speed and memory; in bfloat16 also the
    rounding, so there it stands in the labels' source."""
    precision: Precision = "float32"
    """The arithmetic of the model. With bfloat16 a reply depends a little on its batch."""


def version_of(number: str, options: ActingOptions) -> str:
    """All settings that decide the labels, behind the number of the method.

    >>> version_of("1", ActingOptions())
    '1+max_new_tokens=256,precision=float32,seed=0'
    """
    settings = options.model_dump(exclude=_NOT_IN_VERSION, exclude_none=True)
    if options.precision != "float32":
        settings["batch_size"] = options.batch_size
    return f"{number}+" + ",".join(f"{name}={settings[name]}" for name in sorted(settings))


class Acting(Alone):
    """A selector that lets a policy act; the policy is made when the first label is wanted."""

    def __init__(self, options: ActingOptions, policies: PolicyMaker) -> None:
        self._policies = policies
        self.version = version_of("1", options)

    @cached_property
    def source(self) -> LabelSource:
        """Name, version with the settings, and what identifies the policy."""
        return LabelSource(self.name, self.version, model=self._policies.identity)


def local_policies(model: str, options: ActingOptions) -> LocalPolicies:
    """Policies of a model on this machine with these settings."""
    return LocalPolicies(model, options.max_new_tokens, options.precision)
