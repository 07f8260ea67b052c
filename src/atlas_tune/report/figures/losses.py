"""Learning curves: the training loss of each arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from markupsafe import Markup
from matplotlib.axes import Axes

from atlas_tune.report import palette
from atlas_tune.report.figures.marks import backdrop, large_numbers, line
from atlas_tune.report.palette import Look
from atlas_tune.report.results import LossCurve, LossPoint, Results
from atlas_tune.report.svg import panel

MOST_POINTS = 120
"""As many points of a curve as its width can show."""
_FEW = 8
"""Up to so many curves the single points can be seen behind the running means."""
_Place = Callable[[LossPoint], float | None]


def loss_panels(results: Results) -> list[Markup]:
    """The training loss against optimiser steps, seconds and, where known, supervised tokens."""
    curves = [curve for curve in results.losses if curve.points]
    if not curves:
        return []
    measures: list[tuple[str, str, _Place]] = [
        ("loss-steps", "optimiser steps", lambda point: point.step),
        ("loss-seconds", "training seconds", lambda point: point.seconds),
    ]
    if all(point.supervised_tokens is not None for curve in curves for point in curve.points):
        measures.append(("loss-tokens", "supervised tokens", lambda point: point.supervised_tokens))
    looks = palette.looks(results)
    stands_out = {name: looks[name] for name in palette.featured(results)}
    return [
        _loss_panel(curves, stands_out, points_shown(results), *measure) for measure in measures
    ]


def points_shown(results: Results) -> bool:
    """Whether there are so few curves that the single points are drawn too."""
    return sum(bool(curve.points) for curve in results.losses) <= _FEW


def _loss_panel(
    curves: Sequence[LossCurve],
    stands_out: Mapping[str, Look],
    few: bool,
    name: str,
    label: str,
    place: _Place,
) -> Markup:
    def draw(axes: Axes) -> None:
        others = []
        for curve in curves:
            look = stands_out.get(curve.arm)
            at = [place(point) or 0.0 for point in curve.points]
            losses = [point.loss for point in curve.points]
            if few and look:
                axes.plot(at, losses, color=look.paint, linewidth=0.6, alpha=0.35)
            kept = _thinned(len(at))
            means = running_mean(losses)
            shown = [at[i] for i in kept], [means[i] for i in kept]
            if look:
                line(axes, *shown, look)
            else:
                others.append(list(zip(*shown, strict=True)))
        backdrop(axes, others)
        axes.set_xlabel(label)
        axes.set_ylabel("loss per supervised token")
        axes.set_ylim(bottom=0)
        large_numbers(axes)

    return panel(name, f"Loss against {label}", draw)


def _thinned(points: int) -> list[int]:
    """Which points of a curve are drawn: all of a short one, and always the last.

    >>> _thinned(3)
    [0, 1, 2]
    >>> len(_thinned(1000)), _thinned(1000)[-1]
    (112, 999)
    """
    apart = -(-points // MOST_POINTS)
    kept = list(range(0, points, apart))
    return kept if kept[-1:] in ([points - 1], []) else [*kept, points - 1]


def running_mean(values: Sequence[float]) -> list[float]:
    """Centred means over about a tenth of the points; the ends use what there is.

    >>> running_mean([1.0, 2.0, 6.0])
    [1.0, 2.0, 6.0]
    """
    half = len(values) // 20
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
