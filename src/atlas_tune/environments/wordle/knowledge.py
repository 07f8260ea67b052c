"""What the rows of marks tell, in words."""

from __future__ import annotations

from collections.abc import Sequence

_PLACES = ("first", "second", "third", "fourth", "fifth")


def told(rows: Sequence[tuple[str, str]]) -> str:
    """What is known of the hidden word; empty before the first row.

    >>> told([("crane", "bgybg")])
    'I know _ r _ _ e. It holds a, but not third. It does not hold c, n.'
    """
    if not rows:
        return ""
    placed = ["_"] * len(_PLACES)
    elsewhere: dict[str, set[int]] = {}
    absent: set[str] = set()
    for guess, row in rows:
        for place, (letter, mark) in enumerate(zip(guess, row, strict=True)):
            if mark == "g":
                placed[place] = letter
            elif mark == "y":
                elsewhere.setdefault(letter, set()).add(place)
            else:
                absent.add(letter)
    said = []
    if any(letter != "_" for letter in placed):
        said.append(f"I know {' '.join(placed)}.")
    # Where a letter has found its place, where it is not matters little: it is left unsaid.
    held = [
        f"{letter}, but not {' or '.join(_PLACES[place] for place in sorted(places))}"
        for letter, places in sorted(elsewhere.items())
        if letter not in placed
    ]
    if held:
        said.append(f"It holds {'; '.join(held)}.")
    if absent:
        said.append(f"It does not hold {', '.join(sorted(absent))}.")
    return " ".join(said)
