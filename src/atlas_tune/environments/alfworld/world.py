"""The state of a game: the facts that are true now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from atlas_tune.environments.alfworld.goal import holds
from atlas_tune.environments.alfworld.problem import Fact, Formula, Problem


class World:
    """A game in progress. It starts as its problem says and changes by adding and removing facts.

    Facts go by PDDL's names: ``("inreceptacle", object, receptacle)``. Of the facts that an
    action took away, ``gone`` keeps those not brought back: ALFWorld's text looks at them.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._facts: dict[str, Set[Fact]] = dict(problem.facts)
        self.gone: set[Fact] = set()
        [(_, self.agent, _)] = problem.facts["atlocation"]
        self.names = problem.names
        self.things = {name: thing for thing, name in problem.names.items()}
        self.places = {fact[1]: fact[2] for fact in problem.facts["receptacleatlocation"]}
        """The location of each receptacle; it never changes."""
        self._goal_words = set(_words(problem.goal))
        self._won: bool | None = None

    def facts_of(self, predicate: str) -> Set[Fact]:
        """The true facts of a predicate."""
        return self._facts.get(predicate, frozenset())

    def objects_of(self, kind: str) -> tuple[str, ...]:
        """The objects of a PDDL type."""
        return self.problem.of_type.get(kind, ())

    def has(self, *fact: str) -> bool:
        """Whether a fact is true."""
        return fact in self.facts_of(fact[0])

    def change(self, add: Iterable[Fact], remove: Iterable[Fact]) -> None:
        """Take facts away and add others; a fact in both is true afterwards, as in PDDL."""
        add, remove = tuple(add), tuple(remove)
        # To solve the goal is most of a step's time, and most steps change no fact that it names.
        if any(fact[0] in self._goal_words for fact in (*add, *remove)):
            self._won = None
        for fact in remove:
            self._facts[fact[0]] = self.facts_of(fact[0]) - {fact}
            self.gone.add(fact)
        for fact in add:
            self._facts[fact[0]] = self.facts_of(fact[0]) | {fact}
            self.gone.discard(fact)

    @property
    def won(self) -> bool:
        """Whether the goal holds."""
        if self._won is None:
            self._won = holds(self.problem.goal, self)
        return self._won

    @property
    def location(self) -> str:
        """Where the agent is."""
        [(_, _, location)] = self.facts_of("atlocation")
        return location

    @property
    def held(self) -> str | None:
        """The object in the agent's hand; there is at most one."""
        return next((fact[2] for fact in self.facts_of("holds")), None)

    def is_here(self, receptacle: str) -> bool:
        """Whether the agent is at a receptacle."""
        return self.places[receptacle] == self.location

    def is_open(self, receptacle: str) -> bool:
        """Whether its inside can be seen and reached; what cannot be opened always is."""
        return not self.has("openable", receptacle) or self.has("opened", receptacle)

    def receptacles_here(self) -> list[str]:
        """The receptacles at the agent's location, in the order of their ids."""
        return sorted(r for r, place in self.places.items() if place == self.location)

    def inside(self, receptacle: str) -> list[str]:
        """The objects in or on a receptacle, open or not, in the order of their ids."""
        return sorted(o for _, o, r in self.facts_of("inreceptacle") if r == receptacle)

    def kinds(self, thing: str) -> set[str]:
        """The types of an object or a receptacle ("mugtype")."""
        typed = (*self.facts_of("objecttype"), *self.facts_of("receptacletype"))
        return {kind for _, one, kind in typed if one == thing}


def _words(formula: Formula) -> Iterator[str]:
    for part in formula:
        if isinstance(part, str):
            yield part
        else:
            yield from _words(part)
