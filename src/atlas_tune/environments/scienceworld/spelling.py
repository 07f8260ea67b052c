"""Names that ScienceWorld spelt otherwise when AgentTraj-L's runs were recorded.

The recordings say "green house" where today's simulator knows only "greenhouse", so their actions
would not be understood. The pairs are the strings of version 1.0.2's jar that name things and that
1.2.3's has in another spelling; 1.0.3rc1 is the first that spells as today. "voilet paper" is left
out: no recorded run holds it, and "violet" stood beside it for other things.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_TODAYS = {
    "green house": "greenhouse",
    "bath tub": "bathtub",
    "sandwhich": "sandwich",
    "cachew": "cashew",
    "gasseous tin": "gaseous tin",
}
_FORMER = {today: former for former, today in _TODAYS.items()}


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(words) + r")", re.IGNORECASE)


_FORMER_NAME, _TODAYS_NAME = _any_of(_TODAYS), _any_of(_FORMER)


def todays(text: str) -> str:
    """The text with today's names.

    >>> todays("open door to green house")
    'open door to greenhouse'
    """
    return _replaced(_FORMER_NAME, _TODAYS, text)


def former(text: str) -> str:
    """The text with the names of before; a plural ("cashews") keeps its end.

    >>> former("Peanuts, almonds, and cashews mix to produce mixed nuts.")
    'Peanuts, almonds, and cachews mix to produce mixed nuts.'
    """
    return _replaced(_TODAYS_NAME, _FORMER, text)


def is_former(texts: Iterable[str]) -> bool:
    """Whether any of the texts holds a name of before.

    >>> is_former(["You move to the hallway.", "A door to the green house (that is open)"])
    True
    """
    return any(_FORMER_NAME.search(text) for text in texts)


def _replaced(names: re.Pattern[str], by: Mapping[str, str], text: str) -> str:
    def other(match: re.Match[str]) -> str:
        name = by[match[0].lower()]
        return name[0].upper() + name[1:] if match[0][0].isupper() else name

    return names.sub(other, text)
