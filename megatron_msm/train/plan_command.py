"""`msm plan`: what a run will need, without a GPU."""

import json
from pathlib import Path
from typing import Annotated

import typer

from megatron_msm.config.paths import load_run
from megatron_msm.formats.fetched_models import model_folder
from megatron_msm.next_step import tell_next
from megatron_msm.plan.show import as_data, as_text
from megatron_msm.train.estimating import estimate


def plan(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run's configuration.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes, such as memory.recompute=full."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", metavar="N", min=1, help="GPUs. Default: the ranks of the run's layout."
        ),
    ] = None,
    gpu: Annotated[
        str, typer.Option("--gpu", metavar="GPU", help="a100, h100, h200 or b200.")
    ] = "h100",
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="HF_DIR",
            parser=model_folder,
            help="Hugging Face folder to read sizes from, instead of the checkpoint.",
        ),
    ] = None,
    layouts: Annotated[
        int, typer.Option("--layouts", metavar="N", min=1, help="Layouts to list.")
    ] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout.")
    ] = False,
) -> None:
    """Estimate memory per rank, legal layouts by speed, time and GPU hours of RUN.yaml.

    Example: msm plan run.yaml --gpus 8 --gpu h100
    """
    config = load_run(run_file, overrides or ())
    found = estimate(config, gpu=gpu, num_gpus=gpus, model=model)
    if as_json:
        typer.echo(json.dumps(as_data(found)))
        return
    for line in as_text(found, num_layouts=layouts):
        typer.echo(line)
    needed = () if found.own and found.own.fits else found.fastest and found.fastest.overrides
    tell_next("msm", "train", run_file, *(overrides or ()), *(needed or ()), "--plan-only")
