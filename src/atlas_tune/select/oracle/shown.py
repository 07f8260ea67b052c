"""What the oracle sees of a trajectory: no secrets, no more than it can read, behind a nonce."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atlas_tune.select.base import CannotLabel
from atlas_tune.select.oracle.counting import CountTokens
from atlas_tune.select.oracle.options import OracleOptions
from atlas_tune.select.oracle.prompt import Part, agent_text, messages_of, parts_of
from atlas_tune.select.oracle.redact import PATTERNS, redacted, user_pattern
from atlas_tune.select.oracle.shorten import note_of, shortened
from atlas_tune.trajectory import Trajectory, budget_steps

_TEMPLATE_TOKENS = 32
"""What a chat template adds around two messages, at a generous guess."""

_LONGEST_COMPLAINT = "x" * 400


@dataclass(frozen=True, slots=True)
class Shown:
    """One trajectory as it is shown."""

    trajectory_id: str
    parts: tuple[Part, ...]
    written: dict[int, str]
    """What the agent wrote in each of its steps, in which quotes must be found."""
    budget: int
    """The most steps that may be marked."""
    nonce: str
    notes: tuple[str, ...]
    """What the labels say of the difference between this and the trajectory."""
    room: int | None = None
    """Tokens of ``context_tokens`` that the longest question leaves to an answer."""


def show(
    trajectory: Trajectory,
    options: OracleOptions,
    share: float,
    make_nonce: Callable[[], str],
    count_tokens: CountTokens,
) -> Shown:
    """The trajectory as a question shows it; the trajectory itself stays as it is.

    Raises:
        CannotLabel: it does not fit ``context_tokens`` even with its observations shortened.
    """
    notes = []
    visible = trajectory
    if options.redact:
        patterns = [*PATTERNS, *map(user_pattern, options.redact_patterns)]
        visible, hidden = redacted(trajectory, patterns)
        if hidden:
            notes.append(f"secrets hidden from the oracle: {hidden}")
    budget = budget_steps(len(visible.agent_steps), share)
    parts = parts_of(visible)
    nonce = _fresh_nonce(parts, make_nonce)
    room = None
    if options.context_tokens is not None:

        def size(some: Sequence[Part]) -> int:
            """The tokens of the longest question about a record: the one with a complaint."""
            asked = messages_of(some, budget, nonce, _LONGEST_COMPLAINT, options.kinds)
            return sum(count_tokens(m["content"]) for m in asked) + _TEMPLATE_TOKENS

        parts = shortened(parts, size, options.context_tokens - options.answer_tokens)
        room = options.context_tokens - size(parts)
        if note := note_of(parts):
            notes.append(note)
    written = {step.step_id: agent_text(step) for step in visible.agent_steps}
    return Shown(trajectory.trajectory_id, parts, written, budget, nonce, tuple(notes), room)


def _fresh_nonce(parts: Sequence[Part], make_nonce: Callable[[], str]) -> str:
    for _ in range(2):
        nonce = make_nonce()
        # Chance never does this, but what the record already holds tells nothing from data.
        if not any(nonce in part.text for part in parts):
            return nonce
    raise CannotLabel(f"it holds the mark '{nonce}' that is to tell our lines from its own")
