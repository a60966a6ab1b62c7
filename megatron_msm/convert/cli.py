"""`msm convert`: Hugging Face folder <-> Megatron checkpoint. Torch comes when a command runs."""

import json
import resource
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import WEIGHTS_SUFFIX
from megatron_msm.formats.fetched_models import model_folder
from megatron_msm.formats.json_types import JsonRow
from megatron_msm.formats.output_paths import check_output_folder
from megatron_msm.lazy_commands import lazy_app
from megatron_msm.next_step import tell_next
from megatron_msm.progress import show_progress

if TYPE_CHECKING:
    from megatron_msm.convert.verifying import ForwardReport

app = lazy_app(
    {
        "import": "megatron_msm.convert.cli:import_command",
        "export": "megatron_msm.convert.cli:export_command",
        "verify": "megatron_msm.convert.cli:verify_command",
    },
    help="Convert between Hugging Face folders and Megatron checkpoints, and prove them equal.\n\n"
    "Example: msm convert import models/SmolLM2 checkpoints/base",
)

HfDir = Annotated[
    Path,
    typer.Argument(
        metavar="HF_DIR",
        parser=model_folder,
        help="Hugging Face model folder, or ORG/NAME after `msm fetch`.",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Checkpoint folder (its newest iteration) or an iteration folder.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
_DIFFERENCES_SHOWN = 10
_PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def import_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            parser=model_folder,
            help="Hugging Face folder, ORG/NAME after `msm fetch`, or checkpoint.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Checkpoint folder to create.", show_default=False)
    ],
    hf: Annotated[
        Path | None,
        typer.Option(
            metavar="HF_DIR",
            parser=model_folder,
            help="Folder with config and tokenizer, when SOURCE is a checkpoint of Megatron-LM, "
            "Megatron-Bridge or NeMo 2.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an import that is already there.")] = False,
    adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="PEFT_DIR", help="PEFT folder: put its LoRA adapters beside the weights."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(help="First let Megatron and transformers compute with two layers, compare."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Write SOURCE's model as a Megatron checkpoint that loads under any parallel layout.

    Example: msm convert import models/SmolLM2 checkpoints/base
    """
    from megatron_msm.convert.importing import import_hf, import_megatron

    check_output_folder(out)
    started = time.monotonic()
    with show_progress() as progress:
        if hf is None:
            state = import_hf(
                source,
                out,
                force=force,
                adapter=adapter,
                check=check,
                progress=progress,
            )
        elif adapter is not None:
            raise ConfigError("--adapter: goes with a Hugging Face folder, not with --hf.")
        else:
            state = import_megatron(source, hf, out, force=force, check=check, progress=progress)
    num_bytes = sum(r.bytes for name, r in state.files.items() if name.endswith(WEIGHTS_SUFFIX))
    cost = _cost(started, num_bytes)
    result: JsonRow = {
        "checkpoint": str(out),
        "architecture": state.architecture,
        "identity": state.identity,
        **cost,
    }
    text = f"imported {state.architecture} into {out}: {_in_words(cost)}"
    _show(result, as_json, text, "msm", "train", "RUN.yaml", f"model.checkpoint={out}")


def export_command(
    checkpoint: Checkpoint,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to create.", show_default=False)
    ],
    max_shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Largest weight file, like 5GB or 500MB.")
    ] = "5GB",
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help="Convert every tensor: bfloat16, float32, float16. Default: as it was.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an earlier export.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            help="Compare the checkpoint's files with their SHA-256, and read back every tensor "
            "that is written."
        ),
    ] = True,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write the LoRA adapters alone, in PEFT's format.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --adapter: folder or hub's name of the model that they belong to. Default: "
            "where it was imported from, if that was a hub's cache.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write CHECKPOINT as a complete Hugging Face folder: weights, tokenizer, template, config.

    LoRA adapters are merged into the weights, or with --adapter written alone.

    Example: msm convert export runs/msm/sft exports/msm
    """
    from megatron_msm.convert.exporting import export_hf

    check_output_folder(out)
    if adapter:
        _export_adapter(checkpoint, out, base=base, force=force, as_json=as_json)
        return
    if base is not None:
        raise ConfigError("--base: goes with --adapter; merged weights need no base.")
    started = time.monotonic()
    with show_progress() as progress:
        manifest = export_hf(
            checkpoint,
            out,
            max_shard_size=max_shard_size,
            dtype=dtype,
            force=force,
            check=check,
            progress=progress,
        )
    weights = [r.bytes for name, r in manifest.files.items() if name.endswith(".safetensors")]
    cost = _cost(started, sum(weights))
    result: JsonRow = {
        "folder": str(out),
        "phase": manifest.phase,
        "iteration": manifest.iteration,
        "weight_files": len(weights),
        **cost,
    }
    text = f"exported {manifest.phase} step {manifest.iteration} into {out}: {_in_words(cost)}"
    _show(result, as_json, text, "msm", "eval", "run", "SUITE.yaml", out, "--out", "RESULTS")


def _export_adapter(
    checkpoint: Path, out: Path, *, base: str | None, force: bool, as_json: bool
) -> None:
    from megatron_msm.convert.adapters.peft_export import export_adapter

    record = export_adapter(checkpoint, out, base=base, force=force)
    result = {"folder": str(out), **record.model_dump(mode="json")}
    text = f"exported the adapters into {out}: rank {record.rank}, alpha {record.alpha:g}"
    _show(result, as_json, text, "msm", "convert", "export", checkpoint, "MERGED")


def verify_command(
    hf_dir: HfDir,
    checkpoint: Checkpoint,
    logits: Annotated[
        bool,
        typer.Option(
            help="Also compare what Megatron and transformers compute; needs transformers, and "
            "both models in memory in float32."
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Compare every tensor of CHECKPOINT with HF_DIR, and what Megatron and transformers compute.

    Exit status 1 if they differ.

    Example: msm convert verify models/SmolLM2 checkpoints/base
    """
    from megatron_msm.convert.verifying import verify

    with show_progress() as progress:
        report = verify(hf_dir, checkpoint, logits=logits, progress=progress)
    num_equal = report.num_tensors - len(report.differences)
    lines = [f"{num_equal} of {report.num_tensors} tensors are equal bit for bit"]
    for found in report.differences[:_DIFFERENCES_SHOWN]:
        dtypes = f"{found.hf_dtype} -> {found.megatron_dtype}"
        lines.append(f"  {found.name}: largest difference {found.max_abs:.3g} ({dtypes})")
    if len(report.differences) > _DIFFERENCES_SHOWN:
        lines.append(f"  and {len(report.differences) - _DIFFERENCES_SHOWN} more")
    lines += [f"  {name}: has NaN or infinity" for name in report.not_finite[:_DIFFERENCES_SHOWN]]
    lines += _forward_in_words(report.forward)
    lines.append("the same model" if report.is_same_model else "NOT the same model")
    result = asdict(report) | {"same_model": report.is_same_model}
    if not report.is_same_model:
        again = ("msm", "convert", "import", hf_dir, "ANOTHER_CHECKPOINT")
        _show(result, as_json, "\n".join(lines), *again)
        raise typer.Exit(1)
    eval_model = ("msm", "eval", "run", "SUITE.yaml", hf_dir, "--out", "RESULTS")
    _show(result, as_json, "\n".join(lines), *eval_model)


def _forward_in_words(forward: "ForwardReport | None") -> list[str]:
    if forward is None:
        return []
    compared = {
        "all layers, short prompts": forward.whole_model,
        "two layers, one document": forward.long_document,
    }
    return [
        *forward.read_otherwise,
        *([] if forward.tokenizer is None else [forward.tokenizer]),
        *(
            f"logits of Megatron and transformers ({what}): relative difference at most "
            f"{found.relative:.2g}, at position {found.position} of {found.num_positions}"
            + ("" if found.is_same else ": NOT the same")
            for what, found in compared.items()
        ),
    ]


def _cost(started: float, num_bytes: int) -> dict[str, float]:
    seconds = time.monotonic() - started
    return {
        "bytes": num_bytes,
        "seconds": round(seconds, 2),
        "mb_per_s": round(num_bytes / 1e6 / seconds, 1),
        # Of the largest process; ru_maxrss is in KiB on Linux.
        "peak_rss_mib": round(max(_max_rss_kib(who) for who in _PROCESSES) / 1024),
    }


def _max_rss_kib(who: int) -> int:
    return resource.getrusage(who).ru_maxrss


def _in_words(cost: Mapping[str, float]) -> str:
    return (
        f"{cost['bytes'] / 1e6:.0f} MB in {cost['seconds']:.1f} s "
        f"({cost['mb_per_s']:.0f} MB/s, peak memory {cost['peak_rss_mib']} MiB)"
    )


def _show(result: JsonRow, as_json: bool, text: str, *next_command: object) -> None:
    typer.echo(json.dumps(result) if as_json else text)
    if not as_json:
        tell_next(*next_command)
