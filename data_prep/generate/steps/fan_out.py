"""Lists of a wanted length: asked for again with what is there, until it is long enough."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from data_prep.generate.asking import Ask, ReplyForm
from data_prep.generate.context import Context
from data_prep.generate.counts import Shortfall
from data_prep.generate.inputs import StepInputs
from data_prep.generate.spec.clauses import slug

_ROUNDS = 4

Form = TypeVar("Form", bound=ReplyForm)


class Wanted(NamedTuple):
    """A list to be filled."""

    address: str
    """Names its parent, such as `ideas/kitchen/kettle/memo`."""
    prompt: Callable[[str, int], str]
    """Makes a prompt from the items that are there, a line each, and the number still wanted."""
    inputs: StepInputs
    """What else the prompt is made from."""


class Item(NamedTuple):
    """A member of a list."""

    title: str
    text: str
    clause_ids: tuple[str, ...] = ()
    """Clauses that it is about, where the step asks for them."""


def fill_lists(
    context: Context,
    step: str,
    lists: Sequence[Wanted],
    *,
    number: int,
    form: type[Form],
    items_of: Callable[[Form], Sequence[Item]],
    temperature: float | None,
    per_call: int | None = None,
    existing: Sequence[Sequence[Item]] | None = None,
) -> list[list[Item]]:
    """Fill lists to a wanted length; a shortfall is counted, never silent.

    Args:
        context: The run's.
        step: The step that asks.
        lists: The lists.
        number: Items of each.
        form: What a reply holds.
        items_of: The items in a reply.
        temperature: Of the sampling.
        per_call: Items to ask for at once at most; None for all.
        existing: Items that were there before: none is repeated, and they are not returned.
    """
    before = existing or [()] * len(lists)
    filled: list[list[Item]] = [[] for _ in lists]
    most = min(per_call or number, number)
    for turn in range(_ROUNDS + (number - 1) // max(most, 1)):
        short = [index for index, items in enumerate(filled) if len(items) < number]
        asks = [
            _ask(
                lists[index],
                [*before[index], *filled[index]],
                min(most, number - len(filled[index])),
                turn,
            )
            for index in short
        ]
        replies = context.asker.read(
            step, asks, form, temperature=temperature, max_tokens=200 * most + 2000
        )
        for index, reply in zip(short, replies, strict=True):
            if reply is not None:
                _add(filled[index], items_of(reply), number=number, before=before[index])
    for wanted, items in zip(lists, filled, strict=True):
        if len(items) < number:
            context.asker.counts.shortfalls.append(
                Shortfall(step, wanted.address, number, len(items))
            )
    return filled


def _ask(wanted: Wanted, items: Sequence[Item], number: int, turn: int) -> Ask:
    titles = tuple(item.title for item in items)
    return Ask(
        f"{wanted.address}/{turn}",
        wanted.prompt(_shown(items), number),
        inputs=replace(wanted.inputs, number=number, existing=titles),
    )


def _shown(items: Sequence[Item]) -> str:
    return "\n".join(f"- {item.title}" for item in items) or "(none yet)"


def _add(items: list[Item], new: Sequence[Item], *, number: int, before: Sequence[Item]) -> None:
    """Append what is not there yet, by title and by text."""
    names = {slug(item.title, longest=200) for item in (*before, *items)}
    texts = {" ".join(item.text.casefold().split()) for item in (*before, *items)}
    for item in new:
        name, text = slug(item.title, longest=200), " ".join(item.text.casefold().split())
        if name and text and name not in names and text not in texts and len(items) < number:
            items.append(item)
            names.add(name)
            texts.add(text)
