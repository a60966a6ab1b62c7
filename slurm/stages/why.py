"""Why a stage is new: what it is made of beside what an earlier one was made of."""

from collections import Counter
from pathlib import Path

from slurm.stages.accepted import all_records
from slurm.stages.ingredients import Ingredient
from slurm.stages.record import StageRecord, read_done
from slurm.stages.stage import Stage


def nearest_earlier(root: Path, stage: Stage) -> StageRecord | None:
    """Return the stage of this kind, made or planned here before, that differs least."""
    others = [r for r in all_records(root) if r.kind == stage.kind and r.identity != stage.identity]

    def nearness(record: StageRecord) -> tuple[int, bool, bool]:
        done = read_done(root / "stages" / f"{record.kind}-{record.identity[:16]}")
        return (
            -len(differences(record.ingredients, stage.ingredients)),
            record.label == stage.label,
            done is not None,
        )

    return max(others, key=nearness, default=None)


def differences(before: tuple[Ingredient, ...], now: tuple[Ingredient, ...]) -> list[str]:
    """Say in a line each what was changed, added or left out."""
    earlier, later = _by_key(before), _by_key(now)
    lines = []
    for key in dict.fromkeys((*earlier, *later)):
        old, new = earlier.get(key), later.get(key)
        if old is None or new is None or old.decides != new.decides:
            lines.append(_difference(old, new))
    return lines


def _by_key(ingredients: tuple[Ingredient, ...]) -> dict[tuple[str, str], Ingredient]:
    """Name settings and packages by their names, all else by its number."""
    counts: Counter[str] = Counter()
    found: dict[tuple[str, str], Ingredient] = {}
    for each in ingredients:
        by_name = each.what in ("setting", "code")
        found[each.what, each.name if by_name else str(counts[each.what])] = each
        counts[each.what] += 1
    return found


def _difference(old: Ingredient | None, new: Ingredient | None) -> str:
    one = new or old
    assert one is not None
    if one.what == "code":
        what = "is new" if old is None else "was removed" if new is None else "was edited"
        return f"code       {one.name} {what} (`--accept code` keeps what is finished)"
    before = "nothing" if old is None else _shown(old)
    after = "nothing" if new is None else _shown(new)
    if one.what == "setting":
        return f"setting    {one.name}: {before} -> {after}"
    if one.what == "argument":
        return f"argument   {before} -> {after}"
    same_name = old is not None and new is not None and old.name == new.name
    word = "content of" if one.what == "input" else "builds on"
    changed = "has changed" if one.what == "input" else "is new itself: ask why of it"
    if same_name:
        return f"{one.what:<10} {word} {one.name} {changed}"
    return f"{one.what:<10} {before} -> {after}"


def _shown(ingredient: Ingredient) -> str:
    return ingredient.value if ingredient.what == "setting" else ingredient.name
