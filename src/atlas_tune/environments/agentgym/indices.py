"""Task indices as a person writes them: ``0-199``, ``3,7-9``."""

from __future__ import annotations

from collections.abc import Sequence

from atlas_tune.errors import UsageError

_MOST = 1_000_000


def parse_indices(value: object) -> Sequence[int]:
    """The indices of a text, a number or a list of numbers, in the order given, each once.

    >>> list(parse_indices("3, 7-9"))
    [3, 7, 8, 9]

    Raises:
        UsageError: it is none of these, or a range runs backwards.
    """
    if isinstance(value, str):
        parts = [_range(part, value) for part in value.split(",")]
    elif isinstance(value, list | tuple):
        parts = [_single(one, value) for one in value]
    else:
        parts = [_single(value, value)]
    indices = list(dict.fromkeys(index for part in parts for index in part))
    if not indices:
        raise _wrong(value)
    return indices


def _range(part: str, whole: object) -> range:
    first, sign, last = (text.strip() for text in part.partition("-"))
    ends = [first, last] if sign else [first, first]
    if not all(end.isascii() and end.isdigit() and len(end) < 10 for end in ends):
        raise _wrong(whole)
    found = range(int(ends[0]), int(ends[1]) + 1)
    if not 0 < len(found) <= _MOST:
        raise _wrong(whole)
    return found


def _single(one: object, whole: object) -> range:
    if isinstance(one, bool) or not isinstance(one, int) or one < 0:
        raise _wrong(whole)
    return range(one, one + 1)


def _wrong(value: object) -> UsageError:
    return UsageError(
        "The task option 'indices' is a range such as 0-199, several such as 3,7-9, a number or a "
        f"list of numbers, not {value!r}."
    )
