"""The one exception that a user's mistake raises.

Every message is a sentence for the person who can mend it: what was wrong, where
(file, line or id), and what to do. The command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AtlasError(Exception):
    """Something the user can mend; the message says what, where and how."""


class UsageError(AtlasError):
    """The command or the recipe asks for something that does not exist (exit code 2)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known name, or lists them all.

    >>> nearest("textcrat", ["babyai", "textcraft"])
    "did you mean 'textcraft'? Known: babyai, textcraft."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listing = f"Known: {', '.join(names)}."
    return f"did you mean '{close[0]}'? {listing}" if close else listing
