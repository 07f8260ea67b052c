"""How many tokens training would supervise in each step."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from atlas_tune.select.base import CannotLabel
from atlas_tune.trajectory import Selection, Trajectory
from atlas_tune.trajectory.messages import arguments_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens")
"""How the names of a tokenizer's files begin."""


class Characters:
    """Characters for tokens, where no model is named: good to a few percent."""

    name = "characters"
    """What the counts are, as the control's version has it."""
    unit = "supervised characters"

    def __call__(self, trajectory: Trajectory) -> dict[int, int]:
        """The characters that each agent step writes."""
        return {
            step.step_id: len(step.message)
            + len(step.reasoning_content or "")
            + sum(len(call.function_name + arguments_text(call)) for call in step.tool_calls)
            for step in trajectory.agent_steps
        }


class ModelTokens:
    """The tokens that training with a model's tokenizer and chat template supervises."""

    unit = "supervised tokens"

    def __init__(self, model: str) -> None:
        """``model`` as the recipe names it; its tokenizer is loaded when first needed."""
        self.model = model
        self._tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def name(self) -> str:
        """The model's name with a hash of what decides its tokens; not where it lies."""
        from atlas_tune.agents.local_model import resolve_model

        digest = hashlib.sha256()
        for path in sorted(Path(resolve_model(self.model, weights=False)).iterdir()):
            if path.name.startswith(_TOKENIZER_FILES) or path.suffix in (".jinja", ".model"):
                digest.update(path.name.encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return f"{Path(self.model).name}@{digest.hexdigest()[:8]}"

    def __call__(self, trajectory: Trajectory) -> dict[int, int]:
        """The supervised tokens of each agent step, with the token that ends its turn.

        Raises:
            CannotLabel: the trajectory cannot be rendered for training.
            AtlasError: there is no such model, or it has no chat template.
        """
        from atlas_tune.agents.local_model import load_tokenizer
        from atlas_tune.tune.mask_check import MaskError
        from atlas_tune.tune.render import render_rows

        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.model)
        every = tuple(step.step_id for step in trajectory.agent_steps)
        try:
            rows = render_rows(
                self._tokenizer, trajectory, Selection(trajectory.trajectory_id, every, "all")
            )
        except MaskError as error:
            raise CannotLabel(str(error)) from error
        return {span.step_id: span.end - span.start for row in rows for span in row.spans}


_TOKENIZER_FILES = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens")
