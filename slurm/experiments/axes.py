"""The axes of a grid that are fields of its file: varied, zipped, and set for one model."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

Values = Mapping[str, Sequence[object]]
"""Values by field, such as `midtrain.optimizer.lr`."""


def combinations(vary: Values, zipped: Sequence[Values]) -> list[dict[str, object]]:
    """Return every combination of values by field: products of `vary` and of each zipped group."""
    groups = [[{path: value} for value in values] for path, values in vary.items()]
    for group in zipped:
        rows = zip(*group.values(), strict=True)
        groups.append([dict(zip(group, row, strict=True)) for row in rows])
    return [{k: v for part in parts for k, v in part.items()} for parts in product(*groups)]


def labels(values: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return each field with `[lr=0.1]`, or more of its place where its last part is not alone.

    Names of arms stand in lists (`+ARM,-ARM`) and before seeds (`ARM#1`): no value has a comma, a
    bracket or a #. `{rank: 8, alpha: 16}` becomes `rank:8;alpha:16`.
    """
    lasts = [path.split(".")[-1] for path in values]
    return tuple(
        (path, f"[{last if lasts.count(last) == 1 else path}={_shown(value)}]")
        for last, (path, value) in zip(lasts, values.items(), strict=True)
    )


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ";".join(f"{key}:{_shown(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ";".join(map(_shown, value))
    return re.sub(r"[,#\[\]]", ";", str(value))


def set_field(content: dict[str, object], path: str, value: object) -> None:
    """Set `a.b.c` in nested mappings and lists."""
    *parents, last = path.split(".")
    place: Any = content
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value


def conflict(one: str, other: str) -> bool:
    """Whether setting one field would undo the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def left_to_exclude(
    exclude: Sequence[Mapping[str, object]], values: Mapping[str, object]
) -> list[dict[str, object]]:
    """Return what is to be left out of the arms with these values, without the values themselves.

    An entry that names other values of them concerns no arm here; one that names no more than
    these is empty, and leaves out every arm.
    """
    return [
        {axis: value for axis, value in entry.items() if axis not in values}
        for entry in exclude
        if all(str(values[axis]) == str(entry[axis]) for axis in entry if axis in values)
    ]
