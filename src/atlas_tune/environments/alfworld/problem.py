"""A game's starting facts and its goal, read from the PDDL problem in its file.

A fact is a tuple: the predicate, then its arguments, all in lower case as PDDL has them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Fact = tuple[str, ...]
Formula = list[Any]
"""A PDDL formula as nested lists of words, such as ``["not", ["opened", "?r"]]``."""

_COMMENT = re.compile(r";[^\n]*")
_TOKEN = re.compile(r"[()]|[^\s()]+")


class NotAProblem(ValueError):
    """The text is no PDDL problem; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a game starts with and what wins it.

    ``facts`` holds the true facts by predicate, ``of_type`` the objects that a type has,
    ``names`` what each of them is called in the text ("drawer 3").
    """

    facts: Mapping[str, frozenset[Fact]]
    of_type: Mapping[str, tuple[str, ...]]
    goal: Formula
    names: Mapping[str, str] = field(default_factory=dict)


def read_problem(text: str) -> Problem:
    """The problem of a text.

    Raises:
        NotAProblem: it is none, or lacks its facts or its goal.
    """
    tree = _parse(text)
    parts = {part[0]: part[1:] for part in tree if isinstance(part, list) and part}
    for wanted in (":objects", ":init", ":goal"):
        if wanted not in parts:
            raise NotAProblem(f"the PDDL problem has no {wanted}")
    facts: dict[str, set[Fact]] = defaultdict(set)
    for fact in parts[":init"]:
        if fact[0] != "=":  # Distances and the total cost, which no rule asks for.
            facts[fact[0]].add(tuple(fact))
    named = {thing for group in facts.values() for fact in group for thing in fact[1:]}
    return Problem(
        {predicate: frozenset(group) for predicate, group in facts.items()},
        {kind: tuple(members) for kind, members in _typed(parts[":objects"]).items()},
        parts[":goal"][0],
        _names(named),
    )


def _parse(text: str) -> list[Any]:
    """The one bracketed expression of a text as nested lists."""
    open_lists: list[list[Any]] = [[]]
    for token in _TOKEN.findall(_COMMENT.sub("", text).lower()):
        if token == "(":
            open_lists.append([])
        elif token != ")":
            open_lists[-1].append(token)
        elif len(open_lists) > 1:
            done = open_lists.pop()
            open_lists[-1].append(done)
        # Some games close one bracket too many at their end; the reference reader ignores it too.
    whole = open_lists[0]
    if not whole or not isinstance(whole[0], list):
        raise NotAProblem("the text is no bracketed PDDL expression")
    return whole[0]


def _typed(words: list[str]) -> dict[str, list[str]]:
    """The objects of ``a b - type c - other`` by type."""
    of_type: dict[str, list[str]] = defaultdict(list)
    waiting: list[str] = []
    words = iter(words)  # type: ignore[assignment]
    for word in words:
        if word == "-":
            of_type[next(words)] += waiting  # type: ignore[call-overload]
            waiting = []
        else:
            waiting.append(word)
    return of_type


def _names(things: set[str]) -> dict[str, str]:
    """What each thing is called: its kind and a number, counted down in the order of the ids.

    >>> _names({"mug_bar_1", "mug_bar_2", "sink_bar_3_bar_sinkbasin"})["mug_bar_1"]
    'mug 2'
    """
    of_kind: dict[str, list[str]] = defaultdict(list)
    for thing in sorted(things):
        kind, bar, _ = thing.partition("_bar_")
        if bar:
            of_kind[kind + "basin" * ("basin" in thing)].append(thing)
    return {
        thing: f"{kind} {len(members) - place}"
        for kind, members in of_kind.items()
        for place, thing in enumerate(members)
    }
