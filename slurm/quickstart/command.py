"""`msm quickstart`: the whole pipeline on a real small model, on this machine.

It is the experiment of examples/cheese/quickstart.yaml with a screen of its own. The study behind
it is the paper's first (arXiv 2605.02087, section 3): documents explain a preference between foods
by a value, chats teach the preference without the reason, and forced choices in other domains show
whether the value came along.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from megatron_msm.errors import ConfigError
from megatron_msm.formats.output_paths import check_output_folder
from megatron_msm.shipped_examples import examples_folder
from slurm.experiments.planning import load_grid
from slurm.quickstart.screen import show_quickstart


def quickstart(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for everything that is made.")
    ] = Path("runs/quickstart"),
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="HF_DIR", help="A Hugging Face folder. Left out: SmolLM2-135M-Instruct."
        ),
    ] = None,
    spec: Annotated[
        Literal["homemade", "affordability"], typer.Option(help="Whose documents to train on.")
    ] = "homemade",
    docs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Your own documents (JSONL with `text`) instead."),
    ] = None,
    chats: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Your own chats (JSONL with `messages`) instead."),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Your own forced-choice items (JSONL) instead."),
    ] = None,
    tensor: Annotated[int, typer.Option(metavar="N", min=1, help="Tensor parallel size.")] = 1,
    pipeline: Annotated[int, typer.Option(metavar="N", min=1, help="Pipeline parallel size.")] = 1,
    data: Annotated[int, typer.Option(metavar="N", min=1, help="Data parallel size.")] = 2,
    midtrain_steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Steps on documents.")
    ] = 90,
    sft_steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps on chats.")] = 36,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the data order.")] = 1234,
) -> None:
    """Run the whole pipeline on a real small model: documents in, an evaluated model out.

    Run it again to go on where it stopped.

    Example: msm quickstart --out runs/first --midtrain-steps 30
    """
    check_output_folder(out)
    batch = max(2, data)
    changes: dict[str, object] = {
        "out": str(out),
        "specs": {"yours": [_file(docs)]} if docs else {spec: [f"{spec}.docs.jsonl"]},
        "seeds": [seed],
        "run.parallel": {"tensor": tensor, "pipeline": pipeline, "data": data},
        "midtrain.global_batch_size": batch,
        "midtrain.duration": {"steps": midtrain_steps},
        "sft.global_batch_size": batch,
        "sft.duration": {"steps": sft_steps},
    }
    changes |= {"models": {"base": str(model.absolute())}} if model else {}
    changes |= {"aft": {"yours": [_file(chats)]}} if chats else {}
    changes |= {"evaluations.choice.items": _file(items)} if items else {}
    grid_file = examples_folder() / "cheese" / "quickstart.yaml"
    # JSON is YAML, and quotes every path as it has to be.
    grid = load_grid(grid_file, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    show_quickstart(grid, grid_file)


def _file(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file. Give the path of a JSONL file.")
    return str(path.absolute())
