"""`msm prep health`: is a corpus fit to be trained on, and are two arms fit to be compared?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from data_prep.health.examine import Arm, HealthOptions, examine
from data_prep.health.figures import HealthReport
from data_prep.health.gates import Verdict, judge, parse_gate
from data_prep.health.page import write_page
from data_prep.health.screen import print_report
from data_prep.health.values import load_values
from data_prep.reading.inputs import STDIN, expand_inputs
from megatron_msm.errors import ConfigError
from megatron_msm.formats.fetched_models import model_folder
from megatron_msm.formats.output_paths import check_output_file
from megatron_msm.next_step import tell_next
from megatron_msm.progress import show_progress

Docs = Annotated[
    list[Path],
    typer.Argument(
        metavar="DOCS",
        help="One corpus: JSONL (also .gz, .zst), Parquet, Arrow, `datasets` folders, patterns; "
        "- is stdin.",
    ),
]


def health(
    docs: Docs,
    *,
    values: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="Words of the value, of behaviours and of reasons."),
    ] = None,
    other: Annotated[
        list[Path] | None,
        typer.Option(metavar="DOCS", help="The other arm of a contrast; may be repeated."),
    ] = None,
    other_values: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="The same for the other arm's value.")
    ] = None,
    items: Annotated[
        Path | None, typer.Option(metavar="ITEMS", help="Evaluation items to look for, as JSONL.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="HF_DIR",
            parser=model_folder,
            help="Measure the loss before training under this model.",
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME>=VALUE",
            help="Exit with 1 unless a figure meets this; may be repeated. Also <=, > and <.",
        ),
    ] = None,
    window: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Sentences that may share value, behaviour and reason."
        ),
    ] = 1,
    sample: Annotated[
        int,
        typer.Option(
            metavar="N", min=2, help="Most documents for what takes long; others see all."
        ),
    ] = 20_000,
    loss_documents: Annotated[
        int, typer.Option(metavar="N", min=1, help="Documents of each arm that --model reads.")
    ] = 200,
    text_field: Annotated[
        str, typer.Option(metavar="FIELD", help="Field that holds the document.")
    ] = "text",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the report as one page.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object.")
    ] = False,
) -> None:
    """Measure what a corpus of documents teaches, and how two arms differ.

    Example: msm prep health docs.jsonl --other others.jsonl --html health.html
    """
    check_output_file(html)
    if other_values is not None and not other:
        raise typer.BadParameter("needs --other", param_hint="--other-values")
    gates = [parse_gate(text) for text in require or []]
    names = arm_names(docs, other or [])
    arms = [Arm(names[0], docs, None if values is None else load_values(values))]
    if other:
        theirs = None if other_values is None else load_values(other_values)
        arms.append(Arm(names[1], other, theirs))
    options = HealthOptions(
        arms=arms,
        items=items,
        model=model,
        loss_documents=loss_documents,
        window=window,
        sample=sample,
        text_field=text_field,
    )
    report = _examine(options)
    try:
        verdicts = judge(report, gates)
    except ConfigError:
        show_report(report, [], html=html, as_json=as_json)  # a misspelt gate costs no measurement
        raise
    show_report(report, verdicts, html=html, as_json=as_json)
    failed = [
        f"{verdict.gate} ({verdict.where}: {verdict.shown})"
        for verdict in verdicts
        if not verdict.is_met
    ]
    if failed:
        typer.echo(f"not met: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _examine(options: HealthOptions) -> HealthReport:
    inputs = [path for arm in options.arms for path in arm.inputs]
    total = None
    if STDIN not in inputs:
        total = sum(path.stat().st_size for path in expand_inputs(inputs))
    with show_progress() as progress:
        progress.start("read", total)
        return examine(options, progress=progress)


def show_report(
    report: HealthReport, verdicts: Sequence[Verdict], *, html: Path | None, as_json: bool
) -> None:
    """Print a report, and write its page if one is asked for."""
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        write_page(html, report, verdicts)
    if as_json:
        content = {**report.as_json(), "gates": [verdict.as_json() for verdict in verdicts]}
        typer.echo(orjson.dumps(content).decode())
        return
    print_report(report, verdicts, Console(highlight=False))
    if html is not None:
        typer.echo(f"written: {html}")
        tell_next("python3", "-m", "webbrowser", html)
    else:
        documents = report.corpora[0].files[0]
        tell_next("msm", "prep", "docs", documents, "--tokenizer", "DIR", "--out", "PREFIX")


def arm_names(docs: list[Path], other: list[Path]) -> tuple[str, str]:
    """Return what tables call the arms: the names of their first files, unless they are one."""
    one, two = (_name(paths[0]) if paths else "" for paths in (docs, other))
    return (one, two) if one != two else (f"{one} (1)", f"{two} (2)")


def _name(path: Path) -> str:
    return "stdin" if path == STDIN else path.name.split(".")[0] or path.name
