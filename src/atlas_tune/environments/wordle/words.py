"""The words of our own tasks: which there are, which may be hidden where, and vocabularies.

A vocabulary is what the game accepts, in the order in which it is shown. All tasks of one
vocabulary begin with the same text, so a policy reads it once, and an expert works out its first
guess once.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache, lru_cache
from importlib.resources import files

SPLITS = ("train", "dev", "test")
FEWEST = 20
"""Fewer words would leave a split without a hidden word worth the name."""


@cache
def hidden_words(split: str) -> tuple[str, ...]:
    """The words that tasks of a split may hide, in alphabetical order."""
    return tuple(_listed()[split])


@cache
def split_of(word: str) -> str | None:
    """The split whose tasks may hide a word; None for a word that is not ours."""
    return next((split for split in SPLITS if word in hidden_words(split)), None)


def number_of_words() -> int:
    """How many words there are, in all splits."""
    return sum(len(hidden_words(split)) for split in SPLITS)


@lru_cache(maxsize=64)
def vocabulary(size: int, variant: int) -> tuple[str, ...]:
    """``size`` words, of each split its share, in an order of their own.

    Which words, and their order, is by SHA-256: the same on any machine and in any Python.
    """
    chosen = [word for split in SPLITS for word in secrets_of(split, size, variant)]
    return tuple(_ranked(chosen, "order", variant))


@lru_cache(maxsize=256)
def secrets_of(split: str, size: int, variant: int) -> tuple[str, ...]:
    """The words of a vocabulary that a split's tasks hide, shuffled."""
    return tuple(_ranked(hidden_words(split), "chosen", variant)[: _share(split, size)])


def _share(split: str, size: int) -> int:
    """How many of ``size`` words a split gives; the three numbers add up to ``size``."""
    whole = number_of_words()
    if split != "train":
        return round(size * len(hidden_words(split)) / whole)
    return size - sum(_share(other, size) for other in SPLITS if other != "train")


def _ranked(words: tuple[str, ...] | list[str], purpose: str, variant: int) -> list[str]:
    def rank(word: str) -> bytes:
        return hashlib.sha256(f"wordle {purpose} {variant} {word}".encode()).digest()

    return sorted(words, key=rank)


@cache
def _listed() -> dict[str, list[str]]:
    text = files(__package__).joinpath("words.json").read_text(encoding="utf-8")
    record: dict[str, list[str]] = json.loads(text)
    return record
