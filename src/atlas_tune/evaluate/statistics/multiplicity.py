"""Several environments, several chances to be wrong."""

from __future__ import annotations

from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values by name, adjusted by Holm's step-down rule (Scandinavian J. of Statistics 6, 1979).

    The i-th smallest of m is multiplied by m - i + 1; none falls below a smaller one's, none
    exceeds 1. Rejecting what is below the level then errs anywhere with at most that probability,
    however the tests depend on each other.

    Raises:
        ValueError: a p-value is not between 0 and 1.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for i, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        if not 0 <= p_values[name] <= 1:
            raise ValueError(f"A p-value lies between 0 and 1; that of {name} is {p_values[name]}.")
        largest = max(largest, min(1.0, (len(p_values) - i) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
