"""The settings of a training run; without torch, so that a recipe can be read anywhere."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["float32", "bfloat16"]
"""The arithmetic of a model's forward and backward pass."""
_INDECISIVE = {
    "tokens_per_microbatch",
    "gradient_checkpointing",
    "sharded",
    "checkpoint_minutes",
    "report_to",
}


class LoraSettings(BaseModel):
    """Low-rank adapters (peft) instead of full fine-tuning."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(32, ge=1)
    """Scale of the adapters; the update is alpha / rank times their product."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout before the adapters."""
    target_modules: str | list[str] = "all-linear"
    """Module names that get adapters, or ``all-linear``."""


class Savings(BaseModel):
    """What training leaves out without changing its loss or any gradient; all of it by default.

    They are switches so that each can be measured and doubted; ``docs/performance.md`` tells what
    each brings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    tail_cut: bool = True
    """End every row after its last supervised token."""
    supervised_rows: bool = True
    """Final norm, language-model head and loss on the supervised rows only."""
    no_padding: bool = True
    """Rows stand behind each other, without padding."""
    sparse_last_block: bool = True
    """The last block's queries and feed-forward part on the supervised rows only; needs
    ``supervised_rows`` and ``no_padding``."""
    shared_prefixes: bool = True
    """What rows of an optimiser step begin with is computed once; needs ``no_padding``."""


class TuneSettings(BaseModel):
    """How a model is tuned; every field has a default that trains."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epochs: float = Field(3.0, gt=0, allow_inf_nan=False)
    """Passes over the training rows; fractions are allowed."""
    learning_rate: float = Field(1e-5, gt=0, allow_inf_nan=False)
    """Peak learning rate of AdamW."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the optimiser steps over which the rate rises from zero."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    rows_per_step: int = Field(8, ge=1)
    """Trajectories per optimiser step; where a template makes several rows of one, they meet in
    the same step. The more of them, the more beginnings are shared."""
    tokens_per_microbatch: int = Field(4096, ge=1)
    """The most new tokens that run at once; bounds memory, changes no gradient."""
    max_tokens: int = Field(8192, ge=2)
    """Longer rows (after the tail cut) are left out and listed; nothing is trimmed silently."""
    other_steps: float = Field(0.0, ge=0, le=1)
    """How much each token of the agent's steps that are not selected counts, in trajectories with a
    selected one. 0 is the paper's objective; above it nothing of these steps is saved."""
    precision: Precision = "bfloat16"
    """Arithmetic of the forward and backward pass; weights and optimiser stay in float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    savings: Savings = Savings()
    """What is left out because it changes nothing."""
    lora: LoraSettings | None = None
    """Tune low-rank adapters instead of all weights."""
    held_out: float = Field(0.0, ge=0, lt=1)
    """Share of the tasks whose trajectories are not trained on. Their loss by kind of step goes
    into ``metrics.jsonl`` before the first step and after every epoch."""
    sharded: bool = False
    """Where ``torchrun`` starts several processes: deal weights and the optimiser's state out
    between steps (FSDP2), instead of keeping them whole in each process (DDP)."""
    checkpoint_minutes: float = Field(5.0, gt=0)
    """How often a checkpoint is written, so that a killed run loses at most this much."""
    report_to: tuple[str, ...] = ()
    """Trackers that the steps are logged to besides ``metrics.jsonl``, as transformers' Trainer
    names them: ``tensorboard``, ``trackio``, ``wandb``."""

    def decisive(self) -> dict[str, Any]:
        """What decides the weights, up to rounding, as JSON values: a training that is done or
        under way is another one when these change."""
        # Trainings from before there was such a setting are those without it.
        return self.model_dump(
            exclude=_INDECISIVE | ({"other_steps"} if not self.other_steps else set())
        )
