"""A task: the hidden word and the words that the game accepts, and the name that decides both.

``wordle/storm/w400/0`` hides "storm"; the game shows and accepts 400 words, of which the variant
decides which they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from atlas_tune.environments.wordle import words
from atlas_tune.environments.wordle.feedback import WORD, marks
from atlas_tune.errors import UsageError, nearest

# Numbers without leading zeros, so that a task has one name only.
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_TASK_ID = re.compile(rf"wordle/([a-z]+)/w{_NUMBER}/{_NUMBER}")
_LIST = re.compile(rf"```\n((?:[a-z]{{{WORD}}}\n)+)```")


@dataclass(frozen=True)
class Task:
    """The hidden word and the accepted words, in the order shown. Nothing else decides."""

    secret: str
    vocabulary: tuple[str, ...]

    @property
    def observation(self) -> str:
        """The first observation: every accepted word."""
        listed = "\n".join(self.vocabulary)
        return (
            f"The game accepts these words and no others:\n```\n{listed}\n```\n\n"
            "The hidden word is one of them. Make your first guess."
        )


def is_task_id(text: str) -> bool:
    """Whether a text has the form of our task ids."""
    return _TASK_ID.fullmatch(text) is not None


def build(task_id: str) -> Task:
    """The task of an id.

    Raises:
        UsageError: the id is not of our form, or names no word of its vocabulary.
    """
    match = _TASK_ID.fullmatch(task_id)
    if match is None:
        raise UsageError(
            f"'{task_id}' is no Wordle task: the form is wordle/WORD/wWORDS/VARIANT, for example "
            "wordle/storm/w400/0."
        )
    secret, size, variant = match[1], int(match[2]), int(match[3])
    split = words.split_of(secret)
    if split is None:
        known = [word for name in words.SPLITS for word in words.hidden_words(name)]
        hint = nearest(secret, known).split(" Known")[0]
        raise UsageError(f"'{task_id}': '{secret}' is not a word of our list; {hint}")
    if not words.FEWEST <= size <= words.number_of_words():
        raise UsageError(
            f"'{task_id}': a vocabulary has {words.FEWEST} to {words.number_of_words()} words, "
            f"not {size}."
        )
    if secret not in words.secrets_of(split, size, variant):
        raise UsageError(
            f"'{task_id}': '{secret}' is not among the {size} words of variant {variant}: take "
            f"another variant, or all {words.number_of_words()} words."
        )
    return Task(secret, words.vocabulary(size, variant))


def find_vocabulary(text: str) -> tuple[str, ...] | None:
    """The list of accepted words that a text shows between three backticks; None without one.

    The last one wins: a prompt may show a played game before it.
    """
    found = _LIST.findall(text)
    return tuple(dict.fromkeys(found[-1].split())) if found else None


def with_words_of(observation: str, prompt: str) -> str | None:
    """A prompt with the words that an observation lists in place of its own; None without a list.

    Every list of the prompt is replaced: a word that the game refuses is of no use to the agent.
    """
    listed = _LIST.search(observation)
    if listed is None or _LIST.search(prompt) is None:
        return None
    return _LIST.sub(lambda _: listed[0], prompt)


def fitting(vocabulary: Iterable[str], rows: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The words that would have given every row of marks; a row is a guess and its marks."""
    known = tuple(rows)
    return tuple(
        word for word in vocabulary if all(marks(guess, word) == row for guess, row in known)
    )
