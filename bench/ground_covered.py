"""The ground that a method covers between learning and forgetting."""

from __future__ import annotations

from collections.abc import Iterable


def ground_covered(points: Iterable[tuple[float, float]], widest: float = 10.0) -> float:
    """Return the mean height of the best point that forgets no more than x, for x from 0 to `widest`.

    Args:
        points: What each point forgets, and what it has learned. One that forgets nothing, or gains, is at 0.
        widest: Points that forget more do not count.
    """
    area, best, place = 0.0, 0.0, 0.0
    for forgotten, learned in sorted((max(x, 0.0), y) for x, y in points):
        if forgotten >= widest:
            break
        area += best * (forgotten - place)
        place, best = forgotten, max(best, learned)
    return (area + best * (widest - place)) / widest
