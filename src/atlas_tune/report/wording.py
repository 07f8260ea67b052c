"""How numbers and names are written: the same in the page, the Markdown and the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from atlas_tune.report.results import Comparison, Interval

ABSENT = "–"
"""Stands where a number does not exist; never for zero."""
NO_BREAK = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """
    >>> percent(0.64)
    '64.0%'
    """
    return f"{100 * share:.1f}%"


def percent_range(interval: Interval) -> str:
    """
    >>> percent_range((0.542, 0.727))
    '54.2–72.7%'
    """
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}%"


def decimal(value: float | None) -> str:
    """
    >>> decimal(0.5), decimal(None)
    ('0.500', '–')
    """
    return ABSENT if value is None else f"{value:.3f}"


def decimal_range(interval: Interval) -> str:
    """
    >>> decimal_range((-0.25, 0.5))
    '-0.250 to 0.500'
    """
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def count(value: int) -> str:
    """
    >>> count(12345)
    '12,345'
    """
    return f"{value:,}"


def p_value(value: float) -> str:
    """
    >>> p_value(0.0002), p_value(0.0414)
    ('< 0.001', '0.041')
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float) -> str:
    """A p-value in running text, which no line break tears apart.

    >>> p_equals(0.0002), p_equals(0.0414)
    ('p\xa0<\xa00.001', 'p\xa0=\xa00.041')
    """
    written = p_value(value)
    whole = f"p {written}" if written.startswith("<") else f"p = {written}"
    return whole.replace(" ", NO_BREAK)


def duration(seconds: float) -> str:
    """
    >>> duration(4.21), duration(75), duration(3725)
    ('4.2 s', '1 min 15 s', '1 h 2 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def listing(names: Iterable[str], last: str = "and") -> str:
    """
    >>> listing(["all", "random", "first"], "or")
    'all, random or first'
    """
    *most, end = names
    return f"{', '.join(most)} {last} {end}" if most else end


def kind_name(kind: str) -> str:
    """
    >>> kind_name("plan_creation"), kind_name("none")
    ('plan creation', 'not classified')
    """
    return "not classified" if kind == "none" else kind.replace("_", " ")


def quoted(name: str) -> str:
    """An arm's name in running text, where ``all`` or ``first`` would pass for a word.

    >>> quoted("all")
    '“all”'
    """
    return f"“{name}”"


def moment(created_at: str) -> str:
    """A time for readers; what is not ISO 8601 stays as it is.

    >>> moment("2026-01-31T12:00:07+00:00"), moment("2026-01-31T12:00:07+01:00")
    ('2026-01-31 12:00 UTC', '2026-01-31 12:00 UTC+01:00')
    """
    try:
        time = datetime.fromisoformat(created_at)
    except ValueError:
        return created_at
    return f"{time:%Y-%m-%d %H:%M} {time.tzname() or ''}".rstrip()


def budget(share: float | None) -> str:
    """
    >>> budget(0.3), budget(None)
    ('at most 30%', 'no limit')
    """
    return "no limit" if share is None else f"at most {100 * share:g}%"


def verdict(comparison: Comparison) -> str:
    """The verdict with a mark, so that it does not rest on colour."""
    mark = {"better": "▲", "worse": "▼", "cannot tell": "≈"}[comparison.verdict]
    return f"{mark} {comparison.verdict}"


def visible(text: str) -> str:
    """Text with control characters made visible; newlines and tabs stay.

    Trajectories are untrusted: a terminal escape or a NUL is shown as its Unicode picture.

    >>> visible("a\\x1b[2J\\tb")
    'a␛[2J\\tb'
    """
    pictures = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    return text.replace("\r\n", "\n").translate(pictures | {0x7F: 0x2421})
