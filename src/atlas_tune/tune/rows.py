"""Training rows: token ids, and which of them carry loss."""

from __future__ import annotations

from dataclasses import dataclass

IGNORED = -100
"""The label of a token without loss, as PyTorch's cross entropy takes it."""


@dataclass(frozen=True, slots=True)
class Span:
    """The supervised tokens ``[start, end)`` of one agent step; the last one ends the turn."""

    step_id: int
    start: int
    end: int
    weight: float = 1.0
    """How much each of its tokens counts in the loss."""


@dataclass(frozen=True, slots=True)
class Row:
    """One training sequence, cut after its last supervised token.

    Cutting the tail is exact: causal attention lets no later token touch an earlier one, and
    tokens after the last supervised one carry no loss.
    """

    trajectory_id: str
    input_ids: tuple[int, ...]
    spans: tuple[Span, ...]
    full_length: int
    """Tokens before the tail was cut."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Per token its own id where it is supervised, else ``IGNORED``; not shifted."""
        labels = [IGNORED] * len(self.input_ids)
        for span in self.spans:
            labels[span.start : span.end] = self.input_ids[span.start : span.end]
        return tuple(labels)

    @property
    def supervised(self) -> int:
        """The number of supervised tokens."""
        return sum(span.end - span.start for span in self.spans)

    @property
    def weight(self) -> float:
        """The weights of its supervised tokens, added up: what a loss is normalised by."""
        return sum((span.end - span.start) * span.weight for span in self.spans)
