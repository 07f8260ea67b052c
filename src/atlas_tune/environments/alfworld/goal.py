"""Whether a PDDL formula holds: it is solved by joining facts, not by trying all objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Protocol

from atlas_tune.environments.alfworld.problem import Fact, Formula

Binding = Mapping[str, str]


class Facts(Protocol):
    """The true facts by predicate, and the objects by type."""

    def facts_of(self, predicate: str, /) -> Set[Fact]: ...

    def objects_of(self, kind: str, /) -> tuple[str, ...]: ...


def holds(formula: Formula, state: Facts) -> bool:
    """Whether a closed formula of and, or, not, =, exists and forall is true.

    Where a variable of ``exists`` stands in no fact of its body, it is taken to have a value.
    """
    return _solvable(formula, state, {})


def _solvable(formula: Formula, state: Facts, known: Binding) -> bool:
    return next(_solutions(formula, state, known), None) is not None


def _solutions(formula: Formula, state: Facts, known: Binding) -> Iterator[Binding]:
    """The bindings of variables that extend ``known`` and make the formula true."""
    head, *parts = formula
    if head == "and":
        yield from _joined(parts, state, known)
    elif head == "or":
        for part in parts:
            yield from _solutions(part, state, known)
    elif head == "not":
        if not _solvable(parts[0], state, known):
            yield known
    elif head == "=":
        if known[parts[0]] == known[parts[1]]:
            yield known
    elif head == "exists":
        yield from _solutions(parts[1], state, known)
    elif head == "forall":
        if _for_all(parts[0], parts[1], state, known):
            yield known
    else:
        yield from _matches(formula, state, known)


def _joined(parts: list[Formula], state: Facts, known: Binding) -> Iterator[Binding]:
    if not parts:
        yield known
        return
    best = min(parts, key=lambda part: _effort(part, state, known))
    rest = [part for part in parts if part is not best]
    for solution in _solutions(best, state, known):
        yield from _joined(rest, state, solution)


def _effort(part: Formula, state: Facts, known: Binding) -> tuple[int, int]:
    """Facts with the fewest candidates first; what only tests known variables comes when it can."""
    head = part[0]
    if head in ("not", "=", "forall"):
        # Both sides must be known by then, so these come last.
        return 2, 0
    if head in ("and", "or", "exists"):
        return 1, 0
    if all(word in known or not word.startswith("?") for word in part[1:]):
        return 0, 0
    return 0, len(state.facts_of(head))


def _matches(atom: Formula, state: Facts, known: Binding) -> Iterator[Binding]:
    wanted = tuple(known.get(word, word) for word in atom)
    unknown = [place for place, word in enumerate(wanted) if word.startswith("?")]
    facts = state.facts_of(wanted[0])
    if not unknown:
        if wanted in facts:
            yield known
        return
    for fact in facts:
        if len(fact) != len(wanted):
            continue
        found = dict(known)
        for word, thing in zip(wanted, fact, strict=True):
            if word.startswith("?"):
                if found.setdefault(word, thing) != thing:
                    break
            elif word != thing:
                break
        else:
            yield found


def _for_all(variables: list[str], body: Formula, state: Facts, known: Binding) -> bool:
    """``variables`` is ``[?r, -, type]``: one variable, as the games have it."""
    variable, _, kind = variables
    return all(_solvable(body, state, {**known, variable: x}) for x in state.objects_of(kind))
