"""How AgentGym's servers tell the first observation, where ours is told otherwise.

AgentGym's ScienceWorld names the task in a field of its own, and its Wordle, whose paths begin with
``/wordle``, lists the accepted words at another address. Its clients put the pieces together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atlas_tune.environments.wordle.task import find_vocabulary

ROOTS = {"wordle": "/wordle"}
"""Environments whose paths AgentGym begins with a name of their own."""


def as_agentgym_tells(environment: str, reply: dict[str, Any]) -> dict[str, Any]:
    """A reply of ``/reset`` as AgentGym's server of this environment gives it.

    >>> as_agentgym_tells("scienceworld", {"observation": "Boil water.\\nThis room is ..."})
    {'observation': 'This room is ...', 'task_description': 'Boil water.'}
    """
    if environment == "scienceworld":
        task, _, seen = str(reply["observation"]).partition("\n")
        return {**reply, "observation": seen, "task_description": task}
    if environment == "wordle":
        return {**reply, "observation": "The hidden word is one of a list."}
    return reply


def accepted_words(opening: str) -> Sequence[str]:
    """The words that Wordle's own first observation lists."""
    return find_vocabulary(opening) or ()
