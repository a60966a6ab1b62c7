"""`msm generate`: from a Model Spec to documents and chats.

This module imports only typer: `msm --help` loads it, and must start at once. Each command imports
what it needs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data_prep.generate.run import Made
    from data_prep.generate.settings import GenerateConfig

app = typer.Typer(
    help="From a Model Spec to documents and chats, by calls to language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="GENERATE.yaml", help="See docs/generate.md.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Fields to change: documents.ideas_per_type=5"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


@app.command()
def spec(
    path: Annotated[Path, typer.Argument(metavar="SPEC.md", help="The Model Spec.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show the clauses of a spec, their ids, and what is unclear in the numbering."""
    from rich.console import Console

    from data_prep.generate.screen import show_spec
    from data_prep.generate.spec.clauses import ambiguities, read_spec

    found = read_spec(path)
    if as_json:
        clauses = [{**clause._asdict(), "sha256": clause.sha256} for clause in found.clauses]
        _print_json({"clauses": clauses, "notes": list(ambiguities(found))})
    else:
        show_spec(found, Console())
        typer.echo(f"next: msm generate preview GENERATE.yaml   # with spec: {path}")


@app.command()
def preview(path: ConfigFile, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Plan the documents, and show how many, how many tokens and what they will cost."""
    from rich.console import Console

    from data_prep.generate.document_pipeline import plan_documents
    from data_prep.generate.plan import documents_per_clause
    from data_prep.generate.projection import project
    from data_prep.generate.run import opened
    from data_prep.generate.screen import StepLines, show_projection

    config, lines = _config(path, overrides), StepLines()
    with opened(config, on_answer=lines) as run:
        plan = plan_documents(run.context) if config.documents is not None else None
        lines.finish()
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
        typer.echo(f"next: msm generate docs {path}")


@app.command()
def docs(path: ConfigFile, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Generate documents for midtraining. Run it again to go on after any interruption."""
    from data_prep.generate.run import make_documents, opened
    from data_prep.generate.screen import StepLines

    config, lines = _config(path, overrides), StepLines()
    with opened(config, on_answer=lines) as run:
        made = make_documents(run)
        lines.finish()
    _report(config, made, as_json=as_json)


@app.command()
def chats(path: ConfigFile, overrides: Overrides = None, *, as_json: AsJson = False) -> None:
    """Generate chats for alignment fine-tuning. Run it again to go on after any interruption."""
    from data_prep.generate.run import make_chats, opened
    from data_prep.generate.screen import StepLines

    config, lines = _config(path, overrides), StepLines()
    with opened(config, on_answer=lines) as run:
        made = make_chats(run)
        lines.finish()
    _report(config, made, as_json=as_json)


def _config(path: Path, overrides: list[str] | None) -> "GenerateConfig":
    from data_prep.generate.run import resolved_paths
    from data_prep.generate.settings import GenerateConfig
    from megatron_msm.config.load import load_config

    return resolved_paths(load_config(path, GenerateConfig, overrides or ()), path.parent)


def _report(config: "GenerateConfig", made: "Made", *, as_json: bool) -> None:
    from rich.console import Console

    from data_prep.generate.screen import show_summary

    if as_json:
        files = [{"path": str(file.path), "rows": file.rows} for file in made.files]
        _print_json({"files": files, **made.summary})
        return
    show_summary(made.summary, Console())
    for file in made.files:
        typer.echo(f"{file.path}: {file.rows:,} rows")
    typer.echo(f"refused rows, with reasons: {config.out / 'rejects'}")
    kind = "docs" if made.files[0].path.parent.name == "documents" else "chats"
    more = "" if kind == "docs" else " --max-length 4096"
    typer.echo(f"next: msm prep {kind} {made.files[0].path} --tokenizer DIR --out PREFIX{more}")


def _print_json(value: dict[str, Any]) -> None:
    import orjson

    typer.echo(orjson.dumps(value).decode())
