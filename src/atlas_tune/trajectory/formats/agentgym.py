"""AgentGym's ShareGPT: ``{"item_id", "conversations": [{"from", "value", "loss"}]}``.

Only ``gpt`` turns with ``loss: true`` are steps of the expert; the ``loss: false`` turn at the
start ("OK. I'll follow your instructions …") is a prefill. Ids are not unique in every file.
"""

from __future__ import annotations

from typing import Any

from atlas_tune.trajectory.fields import typed
from atlas_tune.trajectory.messages import from_messages
from atlas_tune.trajectory.model import InvalidTrajectory, Trajectory

_ROLE = {"human": "user", "gpt": "assistant", "system": "system"}


def detect(record: Any) -> bool:
    """Whether a record has this format's shape."""
    return isinstance(record, dict) and isinstance(record.get("conversations"), list)


def read(record: Any) -> Trajectory:
    """The trajectory of one AgentGym record.

    ``item_id`` becomes the task id, and its part before the last underscore the environment.

    Raises:
        InvalidTrajectory: the record has not this format, or no turn with ``loss: true``.
    """
    if not detect(record):
        raise InvalidTrajectory("an AgentGym record is an object with a list 'conversations'")
    turns = record["conversations"]
    for index, turn in enumerate(turns):
        speaker = turn.get("from") if isinstance(turn, dict) else None
        if not isinstance(speaker, str) or speaker not in _ROLE:
            raise InvalidTrajectory(
                f"conversations[{index}] needs 'from' as one of {', '.join(_ROLE)}"
            )
        if not isinstance(turn.get("value"), str):
            raise InvalidTrajectory(f"conversations[{index}] needs a text in 'value'")
    messages = [{"role": _ROLE[turn["from"]], "content": turn["value"]} for turn in turns]
    copied = [turn["from"] == "gpt" and turn.get("loss") is not True for turn in turns]
    item_id = typed(record, "item_id", (int, str), "an AgentGym record")
    return Trajectory.create(
        from_messages(messages, copied),
        environment=None if item_id is None else str(item_id).rpartition("_")[0] or None,
        task_id=None if item_id is None else str(item_id),
        agent={"name": "agentgym-expert", "version": "unknown"},
    )
