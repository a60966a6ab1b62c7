"""The commands of `msm eval`: judge Hugging Face checkpoints, and write the report.

What brings transformers, scipy or matplotlib is imported when a command runs.
"""

import contextlib
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evals.progress import progress_on
from evals.tasks.table import print_result
from evals.visible_text import visible
from megatron_msm.errors import ConfigError
from megatron_msm.formats.fetched_models import model_folder
from megatron_msm.formats.files import write_json_atomic
from megatron_msm.formats.output_paths import check_output_file, check_output_folder
from megatron_msm.next_step import tell_next


class Dtype(StrEnum):
    """Precision of the forward pass."""

    BF16 = "bf16"
    FP32 = "fp32"


def choice(
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="Hugging Face folder with a chat template.")
    ],
    items: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Forced-choice items.")],
    out: Annotated[Path, typer.Option(metavar="RESULT.json", help="Where the result goes.")],
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Which items of the file.")] = "test",
    target: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL", help="Label that log-odds above 0 speak for; else the file's first."
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Answers in one forward pass, four an item.")
    ] = 32,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the forward pass.")] = Dtype.BF16,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
    ] = "auto",
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model's name in tables; else the folder's."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result, without its rows, as JSON.")
    ] = False,
) -> None:
    """Forced choice: which of two answers is likelier, in both orders of listing them.

    Each item is asked as a chat turn, and both answers are scored by mean log-probability per
    token. Results go to RESULT.json, with one row per item.

    Example: msm eval choice exports/msm --items items.jsonl --out choice.json
    """
    from evals.models.local import LocalModel
    from evals.tasks.choice.task import ChoiceSettings, prepare_choice

    check_output_file(out)
    settings = ChoiceSettings(
        items=items, split=split, target=target, batch_size=batch_size, dtype=dtype.value
    )
    model = LocalModel(model_dir, device=device, label=label)
    work = prepare_choice(settings, model, "choice")
    model.check()
    with progress_on(Console(stderr=True), "scoring") as shown, model.telling(shown):
        result = work(shown.reach)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out, result.model_dump(mode="json"))
    if as_json:
        typer.echo(result.model_dump_json(exclude={"rows"}, indent=2))
        return
    print_result(result, Console(file=sys.stdout))
    typer.echo(f"written    {out}")
    tell_next("msm", "eval", "report", "OUT.html", "--result", out)


def run(
    suite: Annotated[
        Path, typer.Argument(metavar="SUITE.yaml", help="`evaluations:` by name, as in a grid.")
    ],
    model_dir: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            parser=model_folder,
            help="Hugging Face folder with a chat template; with --server, also a name there.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Gets a NAME.json per evaluation.")],
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this evaluation; repeat it.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="OpenAI-compatible server that has the model, such as http://localhost:8000/v1: "
            "it writes the replies.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
    ] = "auto",
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model's name in tables; else the folder's."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of the results, without their rows.")
    ] = False,
) -> None:
    """Run the evaluations of a suite on a model; each writes DIR/NAME.json as it ends.

    One that stands there already, of the same model, items and settings, is kept.

    Example: msm eval run suite.yaml exports/msm --out results/msm
    """
    from evals.models.local import LocalModel
    from evals.suite import prepare_suite, run_suite

    check_output_folder(out)
    model = LocalModel(model_dir, device=device, label=label, server=server, out=out)
    works = prepare_suite(suite, model, only=only or ())
    errors, shown = Console(stderr=True), []
    with contextlib.closing(model):
        for ran in run_suite(works, out, model, lambda name: progress_on(errors, name)):
            shown.append(ran.result.model_dump(mode="json", exclude={"rows"}))
            if not as_json:
                print_result(ran.result, Console(file=sys.stdout))
                path = f"{out / ran.result.name}.json"
                kept = f"kept       {path}: model, items and settings are those of an earlier run"
                typer.echo(f"{kept if ran.was_kept else f'written    {path}'}\n")
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    written = [word for name in works for word in ("--result", f"{out / name}.json")]
    tell_next("msm", "eval", "report", "OUT.html", *written)


def report(
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="Where the report goes.")],
    results: Annotated[
        list[str] | None,
        typer.Option(
            "--result",
            metavar="[LABEL=]FILE.json",
            help="A result of `msm eval run` or `msm eval choice`; repeat it. Labels ARM#SEED are "
            "seeds of one arm; the first arm is what others are compared with.",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[RUN:]PHASE=metrics.jsonl",
            help="Loss curve of a phase, of a run by its name; repeat it.",
        ),
    ] = None,
    contrasts: Annotated[
        list[str] | None,
        typer.Option(
            "--contrast",
            metavar="NAME=+ARM,-ARM",
            help="A further contrast; repeat it. Difference in differences: "
            "NAME=+BOTH,-ONE,-OTHER,+NEITHER.",
        ),
    ] = None,
    title: Annotated[
        str, typer.Option(metavar="TEXT", help="The report's heading.")
    ] = "Model Spec Midtraining",
    facts: Annotated[
        Path | None,
        typer.Option(
            metavar="FACTS.json", help="Stages: a list of {stage, made, where, seconds, curve}."
        ),
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="EVALUATION=FIGURE[:PUBLISHED=OWN,...]",
            help="A figure of the paper to lay one's own arms beside; repeat it.",
        ),
    ] = None,
    across_protocols: Annotated[
        bool,
        typer.Option(
            "--across-protocols",
            help="Compare results that were not measured alike; the report tells what differs.",
        ),
    ] = False,
    choice_results: Annotated[list[str] | None, typer.Option("--choice", hidden=True)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verdicts and the report's path as JSON.")
    ] = False,
) -> None:
    """Write one self-contained HTML file: loss curves, results, differences, lineage.

    Example: msm eval report out.html --result base=b.json --result msm=m.json
    """
    from evals.report.page import write_report

    _check_results(results, choice_results)
    check_output_file(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = write_report(
        out,
        results=results or (),
        metrics=metrics or (),
        contrasts=contrasts or (),
        title=title,
        facts_path=facts,
        across_protocols=across_protocols,
        references=references or (),
    )
    verdicts = [visible(line) for line in lines]
    if as_json:
        typer.echo(json.dumps({"report": str(out), "verdicts": verdicts}, indent=2))
        return
    for line in verdicts:
        typer.echo(line)
    typer.echo(f"written    {out}")
    tell_next("python3", "-m", "webbrowser", out)


def contrast(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="NAME.json, or an Inspect log (.eval, .json).")
    ],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The same of another model.")],
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of their numbers; else the headline.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="In Inspect logs: field of the samples' metadata whose values are independent, "
            "such as the document that several questions are about. Else every sample is.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="In Inspect logs: field of the metadata to group by."),
    ] = None,
    across_protocols: Annotated[
        bool,
        typer.Option(
            "--across-protocols", help="Contrast what was not measured alike; what differs is told."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Tell how two models differ on the same items: paired, clustered, corrected by group.

    Reads results of `msm eval run` and logs of any Inspect task.

    Example: msm eval contrast results/base/choice.json results/msm/choice.json
    """
    from evals.report.two_results import contrast_two, print_two

    found = contrast_two(
        before,
        after,
        metric=metric,
        cluster=cluster,
        group=group,
        across_protocols=across_protocols,
    )
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    print_two(found, Console(file=sys.stdout))
    results = ("--result", f"before={before}", "--result", f"after={after}")
    tell_next("msm", "eval", "report", "OUT.html", *results)


def power(
    results: Annotated[
        list[str] | None,
        typer.Option(
            "--result",
            metavar="[LABEL=]FILE.json",
            help="Results of a pilot of two arms: spreads are taken from them.",
        ),
    ] = None,
    sd_items: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, help="Spread of the change over items, instead."),
    ] = None,
    sd_seeds: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, help="Spread of an arm's mean over training seeds."),
    ] = None,
    items: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Items; else those of the pilot.")
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, help="A wanted effect: how many items and seeds find it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Tell which change a study would find with 80% power, by the number of training seeds.

    Example: msm eval power --sd-items 0.9 --items 200 --effect 0.2
    """
    from evals.report.planning import plan_study, print_plan

    plan = plan_study(
        results or (), sd_items=sd_items, sd_seeds=sd_seeds, num_items=items, effect=effect
    )
    if as_json:
        typer.echo(plan.model_dump_json(indent=2))
        return
    print_plan(plan, Console(file=sys.stdout))
    tell_next("msm", "experiment", "run", "GRID.yaml", "seeds=3", "--dry-run")


def _check_results(results: list[str] | None, choice_results: list[str] | None) -> None:
    if choice_results:
        instead = " ".join(f"--result {name}" for name in choice_results)
        raise ConfigError(f"--choice: any evaluation is read now. Write instead: {instead}")
    if not results:
        raise ConfigError("--result is missing: a report needs at least one [LABEL=]FILE.json.")
