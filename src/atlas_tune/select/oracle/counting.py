"""Counting tokens: with the model's own tokenizer, or by a rule of thumb where none is given."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atlas_tune.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CountTokens = Callable[[str], int]
"""The tokens of a text."""

CHARACTERS_PER_TOKEN = 4
"""The usual figure for English; Chinese, code and numbers take more tokens than this says."""


def estimated_tokens(text: str) -> int:
    """The tokens of a text where no tokenizer is given: a quarter of its characters."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


class TokenizerCount:
    """Counts with a Hugging Face tokenizer, many texts in as many threads as there are cores."""

    def __init__(self, place: Path) -> None:
        """``place`` is a ``tokenizer.json`` or a folder with one.

        Raises:
            UsageError: there is none at that place, or no library to read it.
        """
        self.path = place / "tokenizer.json" if place.is_dir() else place
        if not self.path.is_file():
            raise UsageError(
                f"There is no tokenizer at {self.path}: give a tokenizer.json, or a folder with "
                "one."
            )
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise UsageError(
                "Counting with a tokenizer needs the package tokenizers: install atlas-tune[tune]."
            ) from error
        content = self.path.read_bytes()
        self.digest = hashlib.sha256(content).hexdigest()
        """SHA-256 of the file: the same tokenizer at another place counts alike."""
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises nothing narrower
            raise UsageError(f"{self.path} is no tokenizer: {error}.") from error
        # A tokenizer.json may cut texts to the length that its model was trained with.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def __call__(self, text: str) -> int:
        """The tokens of one text."""
        return self.all([text])[0]

    def all(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each of many texts."""
        # The library takes no lone surrogates, which recordings do hold.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encoded = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        return [len(one.ids) for one in encoded]


def counter_of(tokenizer: Path | None) -> CountTokens:
    """What counts: the tokenizer at a place, else the estimate.

    Raises:
        UsageError: there is no tokenizer at that place.
    """
    return estimated_tokens if tokenizer is None else TokenizerCount(tokenizer)


def identity_of(count: CountTokens) -> str:
    """What tells one way of counting from another, wherever its files are."""
    if isinstance(count, TokenizerCount):
        return f"tokenizer {count.digest}"
    return str(getattr(count, "__qualname__", type(count).__qualname__))
