"""`msm chat` and `msm sample`: what Hugging Face folders answer, under their own chat template."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.fetched_models import model_folder
from megatron_msm.formats.output_paths import check_output_file
from megatron_msm.next_step import tell_next

if TYPE_CHECKING:
    from evals.models.talker import Talker

Temperature = Annotated[
    float, typer.Option(metavar="X", min=0, help="0 takes the likeliest token each time.")
]
MaxTokens = Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of a reply at most.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed of what is drawn.")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]


def chat(
    model_dir: Annotated[
        Path,
        typer.Argument(
            metavar="HF_DIR", parser=model_folder, help="Hugging Face folder with a chat template."
        ),
    ],
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 256,
    seed: Seed = 1234,
    device: Device = "auto",
) -> None:
    """Talk to a model in the terminal; an empty line ends it.

    Example: msm chat exports/msm
    """
    talker = _talker(model_dir, device, temperature, max_tokens)
    messages: list[dict[str, str]] = []
    while text := _line():
        messages.append({"role": "user", "content": text})
        reply = talker.reply(messages, seed=seed + len(messages))
        typer.echo(reply.text)
        if reply.finish == "max_tokens":
            typer.echo(f"(cut off after {reply.num_tokens} tokens: raise --max-tokens)", err=True)
        messages.append({"role": "assistant", "content": reply.text})
    tell_next("msm", "sample", "PROMPTS.jsonl", model_dir, "--out", "REPLIES.jsonl")


def sample(
    prompts: Annotated[
        Path,
        typer.Argument(metavar="PROMPTS.jsonl", help="Lines with `prompt`, or with `messages`."),
    ],
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="HF_DIR", parser=model_folder, help="Hugging Face folders, side by side."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.jsonl", help="A line for each prompt.")
    ],
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 256,
    seed: Seed = 1234,
    device: Device = "auto",
) -> None:
    """Write the replies of several models to the same prompts, a line for each prompt.

    Example: msm sample prompts.jsonl exports/base exports/msm --out replies.jsonl
    """
    check_output_file(out)
    asked = _read(prompts)
    replies: list[dict[str, object]] = [{} for _ in asked]
    for folder in models:
        talker = _talker(folder, device, temperature, max_tokens)
        for answers, messages in zip(replies, asked, strict=True):
            reply = talker.reply(messages, seed=seed)
            answers[str(folder)] = {"text": reply.text, "finish": reply.finish}
        talker.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(asked, replies, strict=True)
    lines = (
        json.dumps({"messages": said, "replies": own}, ensure_ascii=False) for said, own in rows
    )
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    typer.echo(f"written    {out}: {len(asked)} prompts, {len(models)} models")
    tell_next("less", out)


def _line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _talker(folder: Path, device: str, temperature: float, max_tokens: int) -> "Talker":
    # It brings torch and transformers, which `--help` does without.
    from evals.models.talker import Talker

    return Talker(folder, device=device, temperature=temperature, max_tokens=max_tokens)


def _read(path: Path) -> list[list[dict[str, str]]]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            prompt = row.get("prompt")
            messages = row.get("messages") or [{"role": "user", "content": str(prompt)}]
            if prompt is None and "messages" not in row:
                raise ValueError("neither `prompt` nor `messages`")
        except (ValueError, AttributeError) as error:
            raise DataFormatError(
                f'{path}:{number}: {error}. Each line is {{"prompt": "..."}} or '
                '{"messages": [{"role": "user", "content": "..."}]}.'
            ) from None
        found.append(messages)
    if not found:
        raise DataFormatError(f"{path}: holds no prompts.")
    return found
