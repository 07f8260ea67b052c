"""What is trained of a trajectory, piece by piece, as the trainer will see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from atlas_tune.tune.render import WrittenRow


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a row's text."""

    text: str
    step_id: int | None
    """The step whose tokens are trained here; None where nothing is."""
    tokens: int
    is_cut: bool
    """Whether it stands behind the last trained token, so that it is not computed."""


def pieces_of(row: WrittenRow) -> list[Piece]:
    """The text of a row, cut where training begins and ends; together they are the text again."""
    edges = [0]
    owners: list[int | None] = []
    for span in row.row.spans:
        owners += [None, span.step_id]
        edges += [span.start, span.end]
    owners.append(None)
    edges.append(len(row.starts))
    places = [_character(row, edge) for edge in edges]
    last = row.row.spans[-1].end
    return [
        Piece(row.text[at:to], owner, end - start, start >= last)
        for (start, end), (at, to), owner in zip(
            pairwise(edges), pairwise(places), owners, strict=True
        )
        if end > start
    ]


def _character(row: WrittenRow, token: int) -> int:
    return row.starts[token] if token < len(row.starts) else len(row.text)


@dataclass(frozen=True, slots=True)
class Preview:
    """A row in pieces, with its figures."""

    trajectory_id: str
    pieces: tuple[Piece, ...]
    tokens: int
    """Of the whole text."""
    computed: int
    """Up to the last trained token."""
    supervised: int

    @classmethod
    def of(cls, row: WrittenRow) -> Preview:
        """The preview of one row."""
        return cls(
            row.row.trajectory_id,
            tuple(pieces_of(row)),
            len(row.starts),
            row.row.spans[-1].end,
            row.row.supervised,
        )


def totals(previews: Sequence[Preview]) -> tuple[int, int, int]:
    """Tokens, tokens to compute and supervised tokens of all of them."""
    return (
        sum(one.tokens for one in previews),
        sum(one.computed for one in previews),
        sum(one.supervised for one in previews),
    )
