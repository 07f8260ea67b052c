"""Wordle as an environment: six guesses, and marks for the letters of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium

from atlas_tune.environments.base import TextEnv
from atlas_tune.environments.habits import Habits, seeded
from atlas_tune.environments.wordle import words
from atlas_tune.environments.wordle.expert import GuessingExpert
from atlas_tune.environments.wordle.feedback import marks, spaced
from atlas_tune.environments.wordle.recorded import find_task
from atlas_tune.environments.wordle.task import Task, build, is_task_id, with_words_of
from atlas_tune.errors import UsageError, nearest
from atlas_tune.trajectory import Trajectory

GUESSES = 6
"""Accepted words that an episode allows."""
REFUSAL = "invalid word\n"
"""The answer to what is not an accepted word, as AgentGym's instruction announces it."""
_OPTIONS = ("words", "variants")


class Wordle(TextEnv):
    """Guessing a hidden word, with AgentGym's marks.

    The first observation lists every accepted word. Guessing the hidden one gives reward 1 and
    ends the episode; so does, with reward 0, the sixth wrong guess.
    """

    name: ClassVar[str] = "wordle"
    instruction: ClassVar[str] = (
        "Guess a hidden word of five letters in at most six guesses. Write a guess with spaces: "
        "s h i r e. The answer has a sign for each of your letters: g for the right letter in the "
        "right place, y for a letter that stands elsewhere in the word, b for one that it does not "
        "hold. A letter that your guess has twice is marked both times, even if the word holds it "
        "once. A word that the game does not accept is answered with: invalid word. It costs no "
        "guess."
    )
    max_steps: ClassVar[int] = 8
    metric: ClassVar[str] = "success"
    splits: ClassVar[tuple[str, ...]] = words.SPLITS

    def __init__(self) -> None:
        super().__init__()
        self._task_id = ""
        self._task: Task | None = None
        self._accepted: frozenset[str] = frozenset()
        self._left = 0

    def tasks(self, split: str, /, **options: Any) -> Sequence[str]:
        """Task ids of a split: each hidden word of variant 0, in shuffled order, then variant 1.

        Options, both whole numbers: ``words`` (400) is how many words the game shows and accepts;
        ``variants`` (4) is how many choices of them there are.
        """
        self.check_split(split)
        for option, value in options.items():
            if option not in _OPTIONS:
                raise UsageError(
                    f"wordle has no task option '{option}': {nearest(option, _OPTIONS)}"
                )
            least, most = _bounds(option)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise UsageError(
                    f"wordle's task option '{option}' is a whole number from {least} to {most}, "
                    f"not {value!r}."
                )
        size, variants = options.get("words", 400), options.get("variants", 4)
        return [
            f"wordle/{secret}/w{size}/{variant}"
            for variant in range(variants)
            for secret in words.secrets_of(split, size, variant)
        ]

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start ``options["task_id"]``. The id alone decides; ``seed`` changes nothing."""
        gymnasium.Env.reset(self, seed=seed)
        task_id = (options or {}).get("task_id")
        if not isinstance(task_id, str):
            raise UsageError(
                "wordle starts a named task: give reset options={'task_id': ...}, for example "
                "'wordle/storm/w400/0'."
            )
        return self._start(task_id, build(task_id))

    def reset_to(self, trajectory: Trajectory) -> tuple[str, dict[str, Any]]:
        """Start the task of a trajectory: by its id if it is ours, else by what the run tells.

        A run from AgentGym shows its accepted words and ends with the hidden one.
        """
        if trajectory.task_id is not None and is_task_id(trajectory.task_id):
            return self.reset(options={"task_id": trajectory.task_id})
        task = find_task(trajectory)
        return self._start(trajectory.task_id or task.secret, task)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Guess a word, with spaces between its letters or without, in small or capital letters."""
        if self._task is None or not self._left:
            raise gymnasium.error.ResetNeeded(
                "wordle has no episode under way: call reset before step."
            )
        guess = "".join(action.split()).lower()
        if guess not in self._accepted:
            return REFUSAL, 0.0, False, False, {"success": False, "valid": False}
        success = guess == self._task.secret
        self._left = 0 if success else self._left - 1
        # The line break is AgentGym's, and stands in every recorded row.
        row = spaced(marks(guess, self._task.secret)) + "\n"
        info = {"success": success, "valid": True}
        return row, float(success), not self._left, False, info

    def restate(self, told: str, observation: str) -> str | None:
        """A prompt that lists accepted words, as AgentGym's, with the words of this game."""
        return with_words_of(observation, told)

    def expert(self, seed: int = 0, habits: Habits | None = None) -> GuessingExpert:
        """The expert of this task with ``habits`` (the usual ones by default).

        Same task, seed and habits: same turns. It knows the accepted words, not the hidden one.
        """
        if self._task is None or not self._left:
            raise gymnasium.error.ResetNeeded("wordle has no task: call reset before expert.")
        return GuessingExpert(
            self._task.vocabulary,
            habits=Habits() if habits is None else habits,
            draw=seeded("wordle expert", self._task_id, seed),
            guesses=GUESSES,
            turns=self.max_steps,
        )

    def _start(self, task_id: str, task: Task) -> tuple[str, dict[str, Any]]:
        self._task_id, self._task, self._left = task_id, task, GUESSES
        self._accepted = frozenset(task.vocabulary)
        return task.observation, {"success": False, "valid": True}


def _bounds(option: str) -> tuple[int, int]:
    """The least and the most that a task option may be."""
    return (words.FEWEST, words.number_of_words()) if option == "words" else (1, 10_000)
