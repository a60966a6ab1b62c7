"""`msm quickstart`: the whole pipeline on a real small model, on this machine.

It is the experiment of examples/plain_or_lasting/quickstart.yaml with a screen of its own. The
study behind it is the paper's first (arXiv 2605.02087, section 3) with other things: documents of
two specs explain the same preferences by two values, the same chats teach the preferences without
the reason, and forced choices in other domains show whether each model took its own spec's value
along.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from megatron_msm.errors import ConfigError
from megatron_msm.formats.fetched_models import model_folder
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
            metavar="HF_DIR",
            parser=model_folder,
            help="A Hugging Face folder. Left out: SmolLM2-135M-Instruct.",
        ),
    ] = None,
    docs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Your own documents (JSONL with `text`) instead; given twice, those of two specs.",
        ),
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
    ] = 44,
    sft_steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps on chats.")] = 12,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the data order.")] = 1234,
) -> None:
    """Run the whole pipeline on a real small model: documents of two specs in, two models out.

    Run it again to go on where it stopped.

    Example: msm quickstart --out runs/first --midtrain-steps 30
    """
    check_output_folder(out)
    batch = max(2, data)
    changes: dict[str, object] = {
        "out": str(out),
        "seeds": [seed],
        "run.parallel": {"tensor": tensor, "pipeline": pipeline, "data": data},
        "midtrain.global_batch_size": batch,
        "midtrain.duration": {"steps": midtrain_steps},
        "sft.global_batch_size": batch,
        "sft.duration": {"steps": sft_steps},
    }
    changes |= {"models": {"base": str(model.absolute())}} if model else {}
    # The file's contrasts are between its own arms.
    changes |= {"specs": _specs(docs), "contrasts": None} if docs else {}
    changes |= {"aft": {"yours": [_file(chats)]}, "contrasts": None} if chats else {}
    if items:
        changes["evaluations.choice"] = {"task": "choice", "items": _file(items)}
    grid_file = examples_folder() / "plain_or_lasting" / "quickstart.yaml"
    # JSON is YAML, and quotes every path as it has to be.
    grid = load_grid(grid_file, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    show_quickstart(grid, grid_file)


def _specs(docs: list[Path]) -> dict[str, list[str]]:
    """Return each file's documents under the file's name without its endings."""
    specs = {path.name.partition(".")[0]: [_file(path)] for path in docs}
    if len(specs) < len(docs):
        raise ConfigError(f"--docs: {docs[0].name} and the other need names that differ.")
    return specs


def _file(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file. Give the path of a JSONL file.")
    return str(path.absolute())
