"""The task of a run that was recorded elsewhere, from what the run tells.

Runs of AgentGym name an episode of a server whose draw cannot be made again from outside. But the
prompt shows every accepted word, and AgentTraj-L keeps the runs that won: a win ends with the
hidden word.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from atlas_tune.environments.wordle.feedback import WORD
from atlas_tune.environments.wordle.task import Task, find_vocabulary, fitting
from atlas_tune.errors import UsageError
from atlas_tune.trajectory import Trajectory

_ACTION = re.compile(r"Action:\s*([^\n]*)")
_ROW = re.compile(rf"[bgy](?: [bgy]){{{WORD - 1}}}")


class _Guess(NamedTuple):
    """A guess and the marks that it was given; None where no row of marks answered it."""

    word: str
    row: str | None
    answered: bool


def find_task(trajectory: Trajectory) -> Task:
    """The accepted words and the hidden word of a recorded run.

    The hidden word is the last guess, if no answer to it was recorded, the run is not on file as
    lost, and the word agrees with all rows of marks. Else it is the only accepted word that does,
    as the one answered by five ``g`` is.

    Raises:
        UsageError: the run shows no list of words, or leaves the hidden word open, or its rows are
            not by AgentGym's rule.
    """
    name = trajectory.trajectory_id[:12]
    vocabulary = find_vocabulary("\n\n".join(_told(trajectory)))
    if vocabulary is None:
        raise UsageError(
            f"Trajectory {name} cannot be replayed in wordle: its task_id "
            f"({trajectory.task_id}) is not one of ours, and no message of it shows the accepted "
            "words between ``` and ```."
        )
    guesses = _guesses(trajectory, frozenset(vocabulary))
    rows = [(guess.word, guess.row) for guess in guesses if guess.row is not None]
    fits = fitting(vocabulary, rows)
    if not fits:
        raise UsageError(
            f"Trajectory {name} cannot be replayed in wordle: no accepted word gives all of its "
            "rows of g, y and b under AgentGym's rule, so it was played by another one."
        )
    last = guesses[-1] if guesses else None
    lost = trajectory.outcome.success is False
    if last is not None and not last.answered and not lost and last.word in fits:
        return Task(last.word, vocabulary)
    if len(fits) > 1:
        raise UsageError(
            f"Trajectory {name} cannot be replayed in wordle: it does not tell the hidden word, "
            f"since {len(fits)} accepted words fit its rows. Only runs that end with the hidden "
            "word, or leave one word, can be replayed."
        )
    return Task(fits[0], vocabulary)


def _guesses(trajectory: Trajectory, accepted: frozenset[str]) -> list[_Guess]:
    """The accepted guesses of a run, in order; a refused word tells nothing of the hidden one."""
    guesses = []
    for step in trajectory.agent_steps:
        found = _ACTION.search(step.message)
        word = "".join(found[1].split()).lower() if found else ""
        if word not in accepted:
            continue
        told = step.observation.text if step.observation is not None else ""
        row = _ROW.search(told)
        guesses.append(_Guess(word, row[0].replace(" ", "") if row else None, bool(told.strip())))
    return guesses


def _told(trajectory: Trajectory) -> list[str]:
    """Everything the agent was told, in order; not what it said."""
    texts = []
    for step in trajectory.steps:
        if step.source != "agent":
            texts.append(step.message)
        if step.observation is not None:
            texts.append(step.observation.text)
    return texts
