"""The recipe's audit: whether the untuned model does better from where selected steps lead."""

from __future__ import annotations

from pydantic import Field, model_validator

from atlas_tune.recipe.section import Section
from atlas_tune.tune.settings import Precision


class AuditSettings(Section):
    """Measuring the selections themselves: the untuned model goes on from inside training runs,
    after their selected steps and after random ones (the paper's Table 6). Replies are as long,
    and as many episodes run at once, as ``evaluate`` says."""

    arms: tuple[str, ...] | None = None
    """The arms whose selections are audited; where it is left out, all but those of ``all``,
    which no other steps can be held against."""
    trajectories: int | None = Field(None, ge=1)
    """At most so many training runs of each environment, by lot; all where it is left out."""
    rollouts: int = Field(1, ge=1)
    """Of the model, from each place in a run."""
    temperature: float = Field(0.0, ge=0)
    """Of its replies; 0 is greedy."""
    controls: int = Field(5, ge=1)
    """Draws of random steps that are matched to each selection in position and tokens."""
    seed: int = Field(0, ge=0)
    """Of the draws and of the bootstrap."""
    precision: Precision = "float32"
    """Arithmetic of the acting model. In bfloat16 a reply may depend on which episodes run beside
    it, and so on where an audit was interrupted."""

    @model_validator(mode="after")
    def _rollouts_differ(self) -> AuditSettings:
        if self.rollouts > 1 and not self.temperature:
            raise ValueError(
                "greedy rollouts from one place are all the same: give a temperature (such as "
                "0.7), or leave rollouts out"
            )
        return self
