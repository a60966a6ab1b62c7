"""The fields in which two configurations differ. No torch."""

from collections.abc import Collection, Iterator
from typing import TypeGuard


def differences(
    before: object, now: object, *, without: Collection[str] = (), at: str = ""
) -> Iterator[str]:
    """Yield `field: was A, now B` for each field that differs.

    Args:
        before: What `model_dump(mode="json")` gave.
        now: The same of the other configuration.
        without: Names of fields and sections that are passed over, wherever they are.
        at: Where the two stand in the whole.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            if name not in without:
                where = f"{at}.{name}" if at else str(name)
                pair = before.get(name), now.get(name)
                yield from differences(*pair, without=without, at=where)
    elif _are_items(before) and _are_items(now):
        yield from differences(_by_name(before), _by_name(now), without=without, at=at)
    elif before != now:
        yield f"{at}: was {_shown(before)}, now {_shown(now)}"


def _are_items(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _by_name(items: list[dict[str, object]]) -> dict[str, object]:
    """Name each item as an override on the command line would: phases by name, else by index."""
    return {str(item.get("name", index)): item for index, item in enumerate(items)}


def _shown(value: object) -> str:
    return "left out" if value is None else str(value)
