"""Spec to kinds of situation in which a question would show whether the model follows it."""

from functools import partial

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from data_prep.generate.asking import ReplyForm
from data_prep.generate.context import Context, clause_lines, clauses_of, unique_slugs
from data_prep.generate.inputs import StepInputs
from data_prep.generate.steps.citing import known_ids
from data_prep.generate.steps.fan_out import Item, Wanted, fill_lists
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import write_json_atomic

SITUATIONS_FILE = "situations.json"


class Situation(BaseModel):
    """A kind of situation."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    title: str
    clause_ids: tuple[str, ...]


class _Item(ReplyForm):
    situation: str
    clause_ids: list[str]


class _Reply(ReplyForm):
    situations: list[_Item]


_LIST = TypeAdapter(list[Situation])


def kept_situations(context: Context, *, number: int) -> list[Situation]:
    """Return the run's kinds of situation: those on disk, or new ones, which are then kept.

    Clauses that the spec no longer has are left out, and situations that cited no other.

    Raises:
        DataFormatError: The file is damaged.
    """
    path = context.config.memory / SITUATIONS_FILE
    if not path.exists():
        asked = _ask_situations(context, number=number)
        write_json_atomic(path, _LIST.dump_python(asked, mode="json"))
        return asked
    try:
        kept = _LIST.validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataFormatError(f"{path}: damaged ({error}). Delete it to ask anew.") from None
    known = set(context.spec.by_id)
    fitted = [
        own.model_copy(update={"clause_ids": tuple(c for c in own.clause_ids if c in known)})
        for own in kept
    ]
    return [own for own in fitted if own.clause_ids]


def _ask_situations(context: Context, *, number: int) -> list[Situation]:
    (items,) = fill_lists(
        context,
        "situations",
        [
            Wanted(
                "situations",
                partial(_prompt, context),
                StepInputs("situations", clauses=clauses_of(context.spec)),
            )
        ],
        number=number,
        form=_Reply,
        items_of=partial(_items, context),
        temperature=None,
    )
    names = unique_slugs([item.title for item in items])
    return [
        Situation(name=name, title=item.title, clause_ids=item.clause_ids)
        for name, item in zip(names, items, strict=True)
    ]


def _items(context: Context, reply: _Reply) -> list[Item]:
    among = tuple(context.spec.by_id)
    found = [
        Item(
            item.situation,
            item.situation,
            known_ids(context, "situations", item.clause_ids, among=among),
        )
        for item in reply.situations
    ]
    return [item for item in found if item.clause_ids]


def _prompt(context: Context, existing: str, number: int) -> str:
    return context.prompt(
        "situations", clauses=clause_lines(context.spec), existing=existing, number=number
    )
