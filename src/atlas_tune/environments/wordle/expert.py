"""The expert: it strikes out the words that no longer fit, and guesses what tells it most.

It knows what an agent can know, the accepted words and the answers. What each habit means here,
and when it is drawn:

- ``look``: a word of new letters alone, to see which the hidden word holds, though other guesses
  would tell more. Drawn before the second and the third guess.
- ``slip``: a mistake, and its repair. Drawn before each guess. Either a word with a letter left
  out, which the game refuses, so that the guess is written again; or, from the second guess on,
  a word that forgets the last row of marks and cannot be right.
- ``detour``: a word that comes to mind instead of the one that tells most: before the first guess
  any accepted word, then one of those that fit.

A habit that may cost a guess is indulged only while four or more are left and two or more words
fit, and a word is misspelt only while there are more turns than guesses.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from atlas_tune.environments.base import ExpertFailed, Turn
from atlas_tune.environments.habits import Habits
from atlas_tune.environments.wordle.feedback import WORD, spaced
from atlas_tune.environments.wordle.guessing import best_guess
from atlas_tune.environments.wordle.knowledge import told
from atlas_tune.environments.wordle.task import fitting

_ROW = re.compile(rf"[bgy](?: [bgy]){{{WORD - 1}}}")
_SPARE = 4
"""From so many guesses on, one may be wasted."""
_NAMED = 6
"""Up to so many fitting words are named in a thought."""


class _Choice(NamedTuple):
    """A guess, why it is made, and what the next turn says of it."""

    word: str
    reason: str
    lesson: str = ""


class GuessingExpert:
    """An expert for one task, which allows ``guesses`` accepted words within ``turns`` turns."""

    def __init__(
        self,
        accepted: tuple[str, ...],
        *,
        habits: Habits,
        draw: random.Random,
        guesses: int,
        turns: int,
    ) -> None:
        self._accepted, self._habits, self._draw = accepted, habits, draw
        self._guesses, self._turns = guesses, turns
        self._fits = accepted
        self._rows: list[tuple[str, str]] = []
        self._choice: _Choice | None = None  # the guess under way
        self._misspelt = False

    def act(self, observation: str) -> Turn:
        """The next turn, given the answer to the last one.

        Raises:
            ExpertFailed: the answer is no row of marks, no accepted word agrees with the rows, or
                no guess is left.
        """
        if self._misspelt and self._choice:
            thought = "That was no word: I left out a letter. I write it again."
        else:
            lesson = self._learn(observation)
            self._choice = self._whim() or self._best()
            said = (lesson, told(self._rows), self._choice.reason)
            thought = " ".join(part for part in said if part)
        self._turns -= 1
        written = self._written(self._choice.word)
        self._misspelt = written != self._choice.word
        return Turn(thought, spaced(written))

    def _learn(self, observation: str) -> str:
        """Strike out what the answer rules out; what is to be said of the guess it answers."""
        if self._choice is None:
            return ""
        row = _ROW.match(observation)
        if row is None:
            raise ExpertFailed(f"a guess was not answered by marks but by: {observation.strip()}")
        self._rows.append((self._choice.word, row[0].replace(" ", "")))
        self._fits = fitting(self._fits, self._rows[-1:])
        self._guesses -= 1
        if not self._fits or not self._guesses:
            raise ExpertFailed("no guess is left, or no accepted word fits the marks")
        return self._choice.lesson

    def _best(self) -> _Choice:
        """The guess that tells most."""
        word = best_guess(self._fits, self._accepted, self._guesses)
        if len(self._fits) == 1:
            return _Choice(word, f"Only {word} fits.")
        if not self._rows:
            return _Choice(word, f"I begin with {word}, whose letters divide the words best.")
        if word in self._fits:
            return _Choice(word, f"{self._count()} {word} may be it, and tells me most.")
        return _Choice(word, f"{self._count()} {word} is none of them, but tells them apart.")

    def _count(self) -> str:
        """How many words fit, and which, where they are few."""
        if len(self._fits) > _NAMED:
            return f"{len(self._fits)} words fit."
        return f"{len(self._fits)} words fit: {', '.join(self._fits)}."

    def _whim(self) -> _Choice | None:
        """A guess that a habit puts in the place of the best one, if one does."""
        if len(self._fits) == 1:
            return None
        if self._rows and self._guesses >= _SPARE:
            if self._feels(self._habits.look) and (fresh := self._fresh()):
                word = self._pick(fresh)
                return _Choice(word, f"I try {word}, all new letters, to see which it holds.")
            if self._feels(self._habits.slip) and (forgetful := self._forgetful()):
                word = self._pick(forgetful)
                lesson = f"{word} could not be right: I forgot what {self._rows[-1][0]} told me."
                return _Choice(word, f"{word} seems to fit.", lesson)
        if self._guesses >= _SPARE and self._feels(self._habits.detour):
            word = self._pick(self._fits)
            if not self._rows:
                return _Choice(word, f"I begin with {word}, the first word that comes to mind.")
            return _Choice(word, f"{self._count()} I try {word}.")
        return None

    def _fresh(self) -> list[str]:
        """Accepted words without a letter that was guessed before."""
        used = set().union(*(guess for guess, _ in self._rows))
        return [word for word in self._accepted if not used & set(word)]

    def _forgetful(self) -> list[str]:
        """Words that fit all rows but the last, which they contradict."""
        earlier = fitting(self._accepted, self._rows[:-1])
        guessed = {guess for guess, _ in self._rows}
        return [word for word in earlier if word not in self._fits and word not in guessed]

    def _written(self, word: str) -> str:
        """The word as it is written down: a slip of the pen leaves out a letter."""
        if self._turns < self._guesses or not self._feels(self._habits.slip):
            return word
        at = int(self._draw.random() * WORD)
        return word[:at] + word[at + 1 :]

    def _feels(self, probability: float) -> bool:
        return self._draw.random() < probability

    def _pick(self, options: Sequence[str]) -> str:
        # random.random() gives the same numbers in every Python version; choice() need not.
        return options[int(self._draw.random() * len(options))]
