"""The commands of `msm generate`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from data_prep.generate.corpus.importing import Kind, import_rows
from data_prep.generate.corpus.page import write_page
from data_prep.generate.document_pipeline import plan_documents
from data_prep.generate.plan import documents_per_clause
from data_prep.generate.projection import project
from data_prep.generate.run import (
    Made,
    OpenRun,
    make_chats,
    make_documents,
    opened,
    read_specs,
    resolved_paths,
)
from data_prep.generate.screen import CallProgress, show_projection, show_spec, show_summary
from data_prep.generate.settings import GenerateConfig
from data_prep.generate.spec.clauses import ambiguities, read_spec
from data_prep.generate.tenet_pipeline import write_tenets
from megatron_msm.config.load import load_config
from megatron_msm.formats.output_paths import check_output_file, check_output_folder
from megatron_msm.next_step import tell_next
from megatron_msm.progress import show_progress

ConfigFile = Annotated[Path, typer.Argument(metavar="GENERATE.yaml", help="See docs/generate.md.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Fields to change: documents.ideas_per_type=5"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def spec(
    path: Annotated[Path, typer.Argument(metavar="SPEC.md", help="The Model Spec.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show the clauses of a spec, their ids, and what is unclear in the numbering.

    Example: msm generate spec spec.md
    """
    found = read_spec(path)
    if as_json:
        clauses = [{**clause._asdict(), "sha256": clause.sha256} for clause in found.clauses]
        _print_json({"clauses": clauses, "notes": list(ambiguities(found))})
    else:
        show_spec(found, Console())
        tell_next("msm", "generate", "preview", "GENERATE.yaml", f"spec={path.absolute()}")


def preview(path: ConfigFile, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Plan the documents, and show how many, how many tokens and what they will cost.

    Example: msm generate preview generate.yaml documents.ideas_per_type=5
    """
    config = _config(path, overrides)
    with _opened(config) as run:
        plan = plan_documents(run.context) if config.documents is not None else None
        steps = project(config, plan, run.journal)
        planned: dict[str, int] = {}
        if plan is not None and config.documents is not None:
            each = config.documents.document_types * config.documents.ideas_per_type
            planned = documents_per_clause(plan, run.context.spec, per_subdomain=each)
    if as_json:
        tree = None if plan is None else plan.model_dump(mode="json")
        steps_json = [step._asdict() for step in steps]
        _print_json({"plan": tree, "documents_per_clause": planned, "steps": steps_json})
    else:
        show_projection(plan, planned, steps, Console())
        tell_next("msm", "generate", "docs", path, *(overrides or ()))


def docs(path: ConfigFile, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Generate documents for midtraining. Run it again to go on after any interruption.

    Example: msm generate docs generate.yaml documents.ideas_per_type=5
    """
    config = _config(path, overrides)
    with _opened(config) as run:
        made = make_documents(run)
    _report(config, made, as_json=as_json)


def chats(path: ConfigFile, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Generate chats for alignment fine-tuning. Run it again to go on after any interruption.

    Example: msm generate chats generate.yaml chats.count=300
    """
    config = _config(path, overrides)
    with _opened(config) as run:
        made = make_chats(run)
    _report(config, made, as_json=as_json)


def tenets(path: ConfigFile, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Generate testable sentences of each clause, for `msm eval run` with the task `audit`.

    Example: msm generate tenets generate.yaml
    """
    config = _config(path, overrides)
    with _opened(config) as run:
        written = write_tenets(run.context)
    if as_json:
        _print_json({"files": [{**one._asdict(), "path": str(one.path)} for one in written]})
        return
    for one in written:
        typer.echo(f"{one.path}: {one.tenets:,} tenets")
        if one.without:
            typer.echo(f"warning    no tenet for the clauses {', '.join(one.without)}", err=True)
    typer.echo(f"next: read them; then {{task: audit, tenets: {written[0].path}, ...}} in a suite")


def page(
    path: ConfigFile,
    overrides: Overrides = None,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="The page to write.")],
) -> None:
    """Write what was generated as one HTML file to read: texts, clauses, twins, rejects and why.

    Example: msm generate page generate.yaml --out page.html
    """
    check_output_file(out)
    config = _config(path, overrides)
    specs = read_specs(config)
    shown = {config.spec.stem: specs.spec, **{arm.spec_id: arm.spec for arm in specs.arms}}
    num_rows = write_page(out, config, shown)
    typer.echo(f"{out}: {num_rows:,} rows")
    tell_next("python3", "-m", "webbrowser", out)


def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE", help="JSONL (also .gz, .zst), Parquet, Arrow, `datasets` folders."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.jsonl", help="The rows to write.")],
    kind: Annotated[Kind, typer.Option(help="What the rows are.")],
    spec_id: Annotated[
        str | None, typer.Option(metavar="NAME", help="The spec of rows that do not name theirs.")
    ] = None,
    max_rejects: Annotated[
        int, typer.Option("--max-rejects", metavar="N", min=0, help="Rows that may be unusable.")
    ] = 0,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="For the card.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take corpora that others made: their rows with ids, provenance and a card.

    Example: msm generate import theirs.jsonl --out docs.jsonl --kind documents
    """
    check_output_file(out)
    made = import_rows(
        sources, out, kind=kind, spec_id=spec_id, max_rejects=max_rejects, licence=licence
    )
    if as_json:
        counts = {"rows": made.rows, "blank": made.blank, "rejected": len(made.rejects)}
        _print_json({"path": str(out), **counts, "same_content": made.twice})
        return
    typer.echo(f"{out}: {made.rows:,} rows; where they are from: {out}.md")
    for reject in made.rejects[:5]:
        typer.echo(f"  unusable: {reject.file}:{reject.line}: {reject.reason}")
    if made.twice:
        typer.echo(
            f"  {made.twice:,} rows have the content of an earlier one: msm prep dedup {out}"
        )
    prep = "docs" if kind == "documents" else "chats"
    length = () if kind == "documents" else ("--max-length", "4096")
    tell_next("msm", "prep", prep, out, "--tokenizer", "DIR", "--out", "PREFIX", *length)


@contextlib.contextmanager
def _opened(config: GenerateConfig) -> Iterator[OpenRun]:
    for folder in (config.out, config.memory):
        check_output_folder(folder)
    with show_progress() as progress, opened(config, watcher=CallProgress(progress)) as run:
        yield run


def _config(path: Path, overrides: list[str] | None) -> GenerateConfig:

    return resolved_paths(load_config(path, GenerateConfig, overrides or ()), path)


def _report(config: GenerateConfig, made: Made, *, as_json: bool) -> None:

    if as_json:
        files = [{"path": str(file.path), "rows": file.rows} for file in made.files]
        _print_json({"files": files, **made.summary})
        return
    show_summary(made.summary, Console())
    for file in made.files:
        typer.echo(f"{file.path}: {file.rows:,} rows")
    typer.echo(f"refused rows, with reasons: {config.out / 'rejects'}")
    kind = "docs" if made.files[0].path.parent.name == "documents" else "chats"
    length = () if kind == "docs" else ("--max-length", "4096")
    path = made.files[0].path
    tell_next("msm", "prep", kind, path, "--tokenizer", "DIR", "--out", "PREFIX", *length)


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(orjson.dumps(value).decode())
