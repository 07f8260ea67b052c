"""Which task AgentGym means by a number: ``sciworld_17`` in AgentTraj-L.

It counts through the variations of the tasks in ScienceWorld's own order (task keys 1-1 to 10-2),
and eight tasks are left out. The recorded runs that were tried begin with the words of the task
that this gives (docs/environments/scienceworld.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LEFT_OUT = frozenset({"2-3", "5-1", "5-2", "9-1", "9-2", "9-3", "10-1", "10-2"})
"""Task keys that AgentTraj-L's numbers do not count."""
_FOREIGN = re.compile(r"(?:sciworld_)?([0-9]{1,6})")


def agentgym_tasks(names: Mapping[str, str]) -> list[str]:
    """The names of the tasks that are counted, in order; ``names`` are by task key.

    >>> agentgym_tasks({"1-1": "boil", "2-3": "melt", "3-1": "wire"})
    ['boil', 'wire']
    """
    return [name for key, name in names.items() if key not in LEFT_OUT]


def foreign_number(task_id: str) -> int | None:
    """The number in a foreign id; None where it is of another form.

    >>> foreign_number("sciworld_17"), foreign_number("17"), foreign_number("boil/3")
    (17, 17, None)
    """
    match = _FOREIGN.fullmatch(task_id)
    return int(match[1]) if match else None


def numbered(number: int, tasks: list[str], variations: Mapping[str, int]) -> tuple[str, int]:
    """The task and the variation of a number, given how many variations each task has.

    >>> numbered(3, ["boil", "wire"], {"boil": 2, "wire": 2})
    ('wire', 1)

    Raises:
        IndexError: the number counts beyond the last task.
    """
    for task in tasks:
        if number < variations[task]:
            return task, number
        number -= variations[task]
    raise IndexError(number)
