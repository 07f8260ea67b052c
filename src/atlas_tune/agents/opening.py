"""The opening: what an agent is told before its first turn.

It is one of three things, the first that there is:

1. what the user gives in a file (``--prompt-file``), see :func:`read_prompt_file`;
2. what the runs carry that the model was tuned on: ``openings.json`` beside its weights holds it
   by environment, see :func:`openings_beside`. A model that learnt from imported runs meets their
   instruction and their prefill again, word for word, and no others;
3. the environment's own instruction and our reply format, see :meth:`Opening.of`.

How the shared opening of recorded runs is found, :mod:`.shared_opening` tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from atlas_tune.environments import own_name
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.trajectory.messages import Message

OPENINGS = "openings.json"
"""The file beside the weights of a tuned model."""
FORM = 1
"""The version of that file's form."""
_ROLES = ("system", "developer", "user", "assistant", "tool")


def _as_it_is(told: str, observation: str) -> str | None:
    """An environment whose task no opening states."""
    return None


@dataclass(frozen=True, slots=True)
class Opening:
    """Messages that come first in every episode, and how the first observation follows them.

    ``messages`` are told as they are. Then comes a user message: ``lead``, a text, and the
    observation behind it. What the lead's last lines and the observation's first ones have in
    common is written once.

    A lead that states what the task decides, as the words of recorded Wordle, would tell the agent
    of another task; the environment puts its own in place of it, see :meth:`TextEnv.restate`.

    An ``anchored`` lead is only written where it and the observation overlap like that. It is
    what recorded observations begin with ("Instruction:", then the line "Crafting commands:" with
    which ours begin); where nothing overlaps, it may belong to the recorded tasks alone, and
    would tell the agent of another task than it has.
    """

    messages: tuple[Message, ...] = ()
    lead: str = ""
    anchored: bool = False

    @classmethod
    def of(cls, instruction: str, reply_format: str, prefill: str) -> Self:
        """An opening in AgentGym's form: instruction, prefill, and then the first observation."""
        told = f"{instruction}\n\n{reply_format}" if reply_format else instruction
        return cls(
            ({"role": "user", "content": told}, {"role": "assistant", "content": prefill}),
        )

    def conversation(
        self, observation: str, restate: Callable[[str, str], str | None] = _as_it_is
    ) -> list[Message]:
        """The messages before the agent's first turn; nothing of the observation is left out.

        Args:
            observation: the first one of the episode.
            restate: the environment's :meth:`TextEnv.restate`.
        """
        told = {"role": "user", "content": self._told(observation, restate)}
        return [*(dict(message) for message in self.messages), told]

    def record(self) -> dict[str, Any]:
        """The opening as JSON values: it decides what rollouts give, so it goes beside them."""
        return {"messages": list(self.messages), "lead": self.lead, "anchored": self.anchored}

    def _told(self, observation: str, restate: Callable[[str, str], str | None]) -> str:
        overlap = _overlap(self.lead, observation)
        if overlap:
            return self.lead[:-overlap] + observation
        if self.anchored or not self.lead:
            return observation
        restated = restate(self.lead, observation)
        if restated is not None:
            return restated
        gap = "" if self.lead.endswith("\n") else "\n\n"
        return self.lead + gap + observation


def _overlap(lead: str, observation: str) -> int:
    """How many signs of whole lines at the lead's end the observation begins with."""
    start = 0
    while start < len(lead):
        if observation.startswith(lead[start:]):
            return len(lead) - start
        end = lead.find("\n", start)
        start = len(lead) if end < 0 else end + 1
    return 0


def openings_beside(model_directory: Path) -> dict[str, Opening]:
    """The openings that a tuned model was trained with, by environment; none where no file is.

    Raises:
        AtlasError: the file is not one of ours.
    """
    path = model_directory / OPENINGS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["form"] != FORM:
            raise ValueError(f"its form is {found['form']!r} and not {FORM}")
        return {name: _parsed(record) for name, record in found["openings"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AtlasError(
            f"{path} does not hold the openings of a tuned model ({_words(error)}): copy it again "
            "from where the model was tuned, or remove it to use the environments' own."
        ) from error


def opening_of(model_directory: Path, environment: str) -> Opening | None:
    """The opening that a model learnt in an environment; None where it was not trained there.

    Args:
        model_directory: where the weights lie, as ``resolve_model`` tells it.
        environment: its name, ours or that of AgentGym's runs.

    Raises:
        AtlasError: the model's file of openings is broken.
    """
    return openings_beside(model_directory).get(world_of(environment))


def world_of(environment: str) -> str:
    """Under which name an environment's opening is kept: the same on a server as at home.

    >>> world_of("sciworld"), world_of("lmrlgym_wordle")
    ('scienceworld', 'wordle')
    >>> world_of("agentgym:babyai@http://127.0.0.1:36001")
    'babyai'
    """
    name = environment.removeprefix("agentgym:").partition("@")[0]
    # AgentGym took Wordle and Maze from LMRL-Gym and calls their runs so.
    return own_name(name.removeprefix("lmrlgym_"))


def read_prompt_file(path: Path, prefill: str) -> Opening:
    """The opening that a user wrote, for all environments.

    A text file holds the instruction, reply format included, word for word; the prefill and the
    first observation follow it. A ``.json`` file holds a list of chat messages instead, which are
    told as they are; the first observation follows as a user message, or, where the last one is
    the user's, as its end.

    Raises:
        UsageError: there is no such file, it is empty, or it does not hold what it should.
    """
    if not path.is_file():
        raise UsageError(f"There is no prompt file {path}. Check the path.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text, at byte {error.start}: save it as UTF-8."
        ) from error
    if path.suffix == ".json":
        return _of_messages(path, text)
    if not text.strip():
        raise UsageError(f"The prompt file {path} is empty: write the instruction into it.")
    return Opening.of(text.rstrip("\n"), "", prefill)


def _of_messages(path: Path, text: str) -> Opening:
    try:
        messages = _messages(json.loads(text))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"The prompt file {path} is not a list of chat messages such as "
            f'[{{"role": "user", "content": "…"}}]: {_words(error)}.'
        ) from error
    if not messages:
        raise UsageError(f"The prompt file {path} holds no message: write the instruction.")
    if messages[-1]["role"] == "user":
        return Opening(messages[:-1], messages[-1]["content"])
    return Opening(messages)


def _parsed(record: Mapping[str, Any]) -> Opening:
    """The opening of a record; what is wrong raises what :func:`openings_beside` explains."""
    lead, anchored = record["lead"], record["anchored"]
    if not isinstance(lead, str) or not isinstance(anchored, bool):
        raise TypeError("'lead' should be a text and 'anchored' true or false")
    return Opening(_messages(record["messages"]), lead, anchored)


def _messages(found: object) -> tuple[Message, ...]:
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise TypeError("a list is wanted")
    for number, message in enumerate(found, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise TypeError(f"message {number} has no text under 'content'")
        if message.get("role") not in _ROLES:
            raise ValueError(f"message {number} needs a 'role', one of {', '.join(_ROLES)}")
    return tuple(found)


def _words(error: Exception) -> str:
    return f"there is no key {error}" if isinstance(error, KeyError) else str(error)
