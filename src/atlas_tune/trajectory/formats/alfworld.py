"""ALFWorld's recorded expert: ``{"id": "train/<task>/<trial>", "conversations": […]}``.

The turns are ShareGPT's, but those of ``gpt`` hold nothing but an action ("go to shelf 1"). Each is
rendered as a turn of ours without a thought, ``Action:`` over the action, so that the run can be
played again and learnt from like any other. ``task_id`` is ``id``, the game's path. No outcome is
recorded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from atlas_tune.trajectory.fields import called, typed
from atlas_tune.trajectory.formats.base import Format, Imported
from atlas_tune.trajectory.formats.transcript import (
    agent_of,
    imported,
    kept_record,
    refusing_depth,
)
from atlas_tune.trajectory.messages import Message
from atlas_tune.trajectory.model import InvalidTrajectory

_GAME = re.compile(r"(train|valid_train|valid_seen|valid_unseen)/[^/]+/trial_[^/]+")
_ROLE = {"human": "user", "gpt": "assistant"}


def detect(record: Any) -> bool:
    """Whether a record is a recorded run, named by its game."""
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        return False
    name = record.get("id")
    return isinstance(name, str) and _GAME.fullmatch(name) is not None


def read(record: Any, path: Path) -> list[Imported]:
    """The trajectory of one run.

    Raises:
        InvalidTrajectory: the record has not this format, or holds no action.
    """
    if not detect(record):
        raise InvalidTrajectory(
            "a recorded ALFWorld run is an object with a list 'conversations' and the path of its "
            "game as 'id' ('train/<task>/trial_<number>')"
        )
    return [_read(record)]


@refusing_depth
def _read(record: dict[str, Any]) -> Imported:
    messages = [
        _message(turn, f"conversations[{index}]")
        for index, turn in enumerate(record["conversations"])
    ]
    return imported(
        messages,
        environment="alfworld",
        task_id=record["id"],
        agent=agent_of(name="alfworld-expert"),
        extra=kept_record(record, ("id", "conversations")),
    )


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict):
        raise InvalidTrajectory(f"{where} is a JSON object, found {called(turn)}")
    text = typed(turn, "value", str, where, required=True)
    speaker = typed(turn, "from", str, where, required=True)
    if speaker not in _ROLE:
        raise InvalidTrajectory(f"{where} needs 'from' as one of {', '.join(_ROLE)}")
    if speaker == "gpt" and "Action:" not in text:
        text = f"Action:\n{text}"
    return {"role": _ROLE[speaker], "content": text}


FORMAT = Format("alfworld", detect, read)
