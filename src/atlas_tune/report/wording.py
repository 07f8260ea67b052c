"""How numbers and names are written: the same in the page, the Markdown and the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from atlas_tune.report.results import Comparison, Interval, Verdict

ABSENT = "–"
"""Stands where a number does not exist; never for zero."""
NO_BREAK = "\N{NO-BREAK SPACE}"
_VISIBLE: Mapping[int, str] = (
    {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
    | {0x7F: "␡"}
    | {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
)


def percent(share: float) -> str:
    """A share as a percentage.

    >>> percent(0.64)
    '64.0%'
    """
    return f"{100 * share:.1f}%"


def percent_range(interval: Interval) -> str:
    """Two shares as a range of percentages.

    >>> percent_range((0.542, 0.727))
    '54.2–72.7%'
    """
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}%"


def decimal(value: float | None) -> str:
    """A reward, loss or score; None is marked as absent.

    >>> decimal(0.5), decimal(None)
    ('0.500', '–')
    """
    return ABSENT if value is None else f"{value:.3f}"


def decimal_range(interval: Interval) -> str:
    """Two decimals as a range, with a word between them, because rewards can be negative.

    >>> decimal_range((-0.25, 0.5))
    '-0.250 to 0.500'
    """
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def count(value: int) -> str:
    """A whole number with separators.

    >>> count(12345)
    '12,345'
    """
    return f"{value:,}"


def p_value(value: float) -> str:
    """A p-value in a table.

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


def points(difference: float) -> str:
    """A difference of two scores, in points of a hundred and with its sign.

    >>> points(0.064), points(-0.031)
    ('+6.4', '−3.1')
    """
    return f"{100 * difference:+.1f}".replace("-", "−")


def points_range(interval: Interval | None) -> str:
    """An interval of a difference in points; None is marked as absent.

    >>> points_range((-0.012, 0.14)), points_range(None)
    ('−1.2 to +14.0', '–')
    """
    return ABSENT if interval is None else f"{points(interval[0])} to {points(interval[1])}"


_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def flops(value: float | None) -> str:
    """A count of floating-point operations in three digits; None is marked as absent.

    >>> flops(1.234e15), flops(0), flops(None)
    ('1.23 PFLOP', '0', '–')
    """
    if value is None:
        return ABSENT
    for size, prefix in _PREFIXES:
        if value >= size:
            return f"{value / size:.3g} {prefix}FLOP"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """A duration in its two largest units.

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
    """Names as a sentence lists them.

    >>> listing(["all", "random", "first"], "or")
    'all, random or first'
    """
    *most, end = names
    return f"{', '.join(most)} {last} {end}" if most else end


def kind_name(kind: str) -> str:
    """The kind of a step in plain words.

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
    """A budget in words.

    >>> budget(0.3), budget(None)
    ('at most 30%', 'no limit')
    """
    return "no limit" if share is None else f"at most {100 * share:g}%"


def options(given: Mapping[str, Any]) -> str:
    """The options of a selector in one line.

    >>> options({"of": "critical", "draws": 3})
    'draws: 3, of: critical'
    """
    return ", ".join(f"{name}: {given[name]}" for name in sorted(given))


_MARKS: Mapping[Verdict, str] = {
    "better": "▲",
    "worse": "▼",
    "equivalent": "=",
    "cannot tell": "≈",
}


def mark(verdict: Verdict) -> str:
    """The mark of a verdict, so that it does not rest on colour."""
    return _MARKS[verdict]


def verdict(comparison: Comparison) -> str:
    """The verdict of a comparison with its mark."""
    return f"{mark(comparison.verdict)} {comparison.verdict}"


def visible(text: str) -> str:
    """Text with control characters made visible; newlines and tabs stay.

    Trajectories are untrusted: a terminal escape or a NUL is shown as its Unicode picture, and a
    mark that turns the direction of writing by its number, so that text reads as it is stored.

    >>> visible("a\\x1b[2J\\tb"), visible("a\\u202eb")
    ('a␛[2J\\tb', 'a⟨U+202E⟩b')
    """
    return text.replace("\r\n", "\n").translate(_VISIBLE)
