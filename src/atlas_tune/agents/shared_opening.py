"""The opening that recorded runs of an environment share, found and kept beside a model.

What a run's agent saw before its first turn is an opening and a first observation. Nothing in a
recording says where one ends, but runs of different tasks do: the opening is what they have in
common. So, for the runs of one environment:

1. **The last message of the user holds the observation**; all messages before it are the opening's.
   Where runs disagree in those, the most frequent ones win, and that is told.
2. **What those last messages begin with** is the opening's lead. Where an instruction stands in an
   earlier message, the lead is whole lines, and anchored (see :class:`.opening.Opening`), because
   all runs may happen to have a line of their task in common. Where none does, instruction and
   observation share the message; the lead is then its common paragraphs.
3. **Last messages that are all the same**, over :data:`DIFFERENT` tasks or more, tell nothing of a
   task (AgentTraj-L's Wordle has the rules there): they are the lead as a whole.

Runs of a single task do not tell an instruction from an observation in one message; then there is
no opening, and the environment keeps its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atlas_tune.agents.opening import FORM, OPENINGS, Opening, world_of
from atlas_tune.replacing import replacing
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.canonical import canonical_json
from atlas_tune.trajectory.messages import Message, to_messages

DIFFERENT = 10
"""So many tasks with one and the same first message of theirs are no chance. Fewer may be: small
worlds of BabyAI are met under several seeds."""


@dataclass(frozen=True, slots=True)
class SharedOpening:
    """What ``runs`` of ``of`` runs in one environment begin with."""

    opening: Opening
    runs: int
    of: int


@dataclass(frozen=True, slots=True)
class _Start:
    """What one run's agent saw first: messages, and the user's last one where there is one."""

    task: str | None
    head: tuple[Message, ...]
    last: str | None

    @property
    def form(self) -> str:
        return canonical_json([list(self.head), self.last is None])


def write_openings(directory: Path, trajectories: Iterable[Trajectory]) -> list[str]:
    """Record, beside a model's weights, the openings of the runs that it is tuned on.

    Returns:
        Sentences on environments whose runs disagree, or tell no opening.
    """
    found = shared_openings(trajectories)
    notices = [
        f"The runs of {name} do not all begin alike: {shared.runs:,} of {shared.of:,} share the "
        "opening that is recorded with the model."
        for name, shared in found.items()
        if shared is not None and shared.runs < shared.of
    ]
    notices += [
        f"The runs of {name} do not tell their instruction from their task, so no opening is "
        "recorded with the model: it will be given the environment's own (or --prompt-file)."
        for name, shared in found.items()
        if shared is None
    ]
    records = {
        name: {**shared.opening.record(), "runs": shared.runs, "of": shared.of}
        for name, shared in found.items()
        if shared is not None
    }
    path = directory / OPENINGS
    if records:
        with replacing(path) as partial:
            content = canonical_json({"form": FORM, "openings": records})
            partial.write_text(content + "\n", encoding="ascii", newline="\n")
    else:
        path.unlink(missing_ok=True)
    return notices


def shared_openings(trajectories: Iterable[Trajectory]) -> dict[str, SharedOpening | None]:
    """What the runs of each environment begin with, by our own names of the environments.

    None where they do not tell. Runs without an environment have no part in it.
    """
    starts: dict[str, list[_Start]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.environment is not None:
            starts[world_of(trajectory.environment)].append(_start_of(trajectory))
    return {name: _shared(starts[name]) for name in sorted(starts)}


def _start_of(trajectory: Trajectory) -> _Start:
    rendered = to_messages(trajectory)
    first = next(i for i, step in enumerate(rendered.step_ids) if step is not None)
    before = rendered.messages[:first]
    if before and before[-1]["role"] == "user":
        return _Start(trajectory.task_id, before[:-1], before[-1]["content"])
    return _Start(trajectory.task_id, before, None)


def _shared(starts: Sequence[_Start]) -> SharedOpening | None:
    ((form, _),) = Counter(start.form for start in starts).most_common(1)
    alike = [start for start in starts if start.form == form]
    head = alike[0].head
    lasts = [start.last for start in alike if start.last is not None]
    tasks = len({start.task for start in alike if start.task is not None})
    is_told_before = any(message["role"] == "user" for message in head)
    if not lasts:
        return SharedOpening(Opening(head), len(alike), len(starts))
    if tasks >= DIFFERENT and len(set(lasts)) == 1:
        return SharedOpening(Opening(head, lasts[0]), len(alike), len(starts))
    if is_told_before:
        lead = _begun(lasts, "\n") if tasks > 1 else ""
        return SharedOpening(Opening(head, lead, anchored=True), len(alike), len(starts))
    if tasks < 2:
        return None
    most = _most_with_one_instruction(lasts)
    return SharedOpening(Opening(head, _begun(most, "\n\n")), len(most), len(starts))


def _begun(texts: Sequence[str], end: str) -> str:
    """What all texts begin with, up to and with the last ``end`` in it."""
    first, last = min(texts), max(texts)  # In order, all others lie between these two.
    pairs = enumerate(zip(first, last, strict=False))
    length = next((i for i, (one, other) in pairs if one != other), min(len(first), len(last)))
    common = first[:length]
    return common[: common.rfind(end) + len(end)] if end in common else ""


def _most_with_one_instruction(texts: Sequence[str]) -> Sequence[str]:
    """The texts with the first paragraph that most of them have, or all where there is none."""
    firsts = Counter(text.partition("\n\n")[0] for text in texts if "\n\n" in text)
    first, count = next(iter(firsts.most_common(1)), ("", 0))
    if 2 * count <= len(texts):
        return texts
    return [text for text in texts if text.startswith(first + "\n\n")]
