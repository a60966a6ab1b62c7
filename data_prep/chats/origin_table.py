"""What `msm prep show` says of a chat: which message, and which of its parts, each loss is from."""

from rich.console import Console

from data_prep.chats.origins import origin_of_row
from data_prep.inspecting.show import RowView
from megatron_msm.errors import MsmError


def print_origin(view: RowView, console: Console) -> None:
    """Print where the loss of a row comes from, or why that is not known."""
    try:
        origin = origin_of_row(view.manifest, view.provenance, view.tokens, view.files)
    except MsmError as error:
        console.print(f"loss by message: not known. {error}", markup=False, soft_wrap=True)
        return
    for turn in origin.turns:
        tokens = f"tokens {turn.first} to {turn.stop - 1}"
        console.print(
            f"loss from {turn.message}: {', '.join(turn.parts)}; {tokens}",
            markup=False,
            soft_wrap=True,
        )
    for change in origin.changes:
        console.print(f"changed: {change}", markup=False)
    for name, value in origin.arguments.items():
        console.print(f"template argument: {name} = {value!r}", markup=False)
