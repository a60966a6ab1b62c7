"""One HTML file that tells what a run did: readable offline, on a phone, in ten years.

No fonts, no CDN: styles and pictures are inside, and one small script where there are transcripts
to filter. Given up for it: zooming into curves; TensorBoard does that from the same metrics.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from evals.report.caveats import evaluation_caveats
from evals.report.clauses import ClauseTable, clause_tables, read_clauses
from evals.report.comparison import MAX_GROUPS_TOLD, Evaluation, compare, signed
from evals.report.findings import Finding
from evals.report.inputs import (
    LossCurve,
    StageFact,
    curves_of,
    load_curve,
    load_facts,
    load_results,
)
from evals.report.item_browser import browsable
from evals.report.number_files import data_folder, write_numbers
from evals.report.pictures import DARK, LIGHT
from evals.report.published import BesidePublished, lay_beside
from evals.report.sections import CurvePanel, Section, build_curves, build_section
from evals.report.training import training_of, unmatched
from evals.report.transcripts import json_block, transcripts_of
from megatron_msm.formats.eval_result import EvalResult, Interval, Summary
from megatron_msm.formats.files import write_text_atomic
from megatron_msm.runtime.versions import installed_versions, source_commit

TEMPLATE, SCRIPT = "report.html.j2", "browse.js"
MAX_CHANGES_OPEN = 8
"""With more arms, or where contrasts lead, what each shows against the first is folded up."""


def write_report(
    out: Path,
    *,
    results: Sequence[str],
    metrics: Sequence[str] = (),
    contrasts: Sequence[str] = (),
    title: str,
    facts_path: Path | None = None,
    across_protocols: bool = False,
    references: Sequence[str] = (),
) -> list[str]:
    """Read everything, then write the report in one go; return its verdicts as lines of text.

    Args:
        out: The HTML file.
        results: `[LABEL=]FILE` of each result; the first of each evaluation is what others are
            compared with.
        metrics: `[RUN:]PHASE=metrics.jsonl` for each loss curve.
        contrasts: `NAME=+ARM,-ARM,...` of each further contrast.
        title: The heading.
        facts_path: A JSON list of `StageFact`.
        across_protocols: Take results that were not measured alike, and say so of them.
        references: `EVALUATION=FIGURE[:PUBLISHED=OWN,...]` of each published figure.

    Raises:
        MsmError: An input is broken or two results were not measured alike.
    """
    loaded = load_results(results, across_protocols=across_protocols)
    evaluations = compare(loaded, contrasts, across_protocols=across_protocols)
    published = [one for asked in references for one in lay_beside(evaluations, asked)]
    facts = load_facts(facts_path) if facts_path else []
    curves = [*(load_curve(argument) for argument in metrics), *curves_of(facts)]
    training = read_clauses([result.model for result in loaded])
    clauses = clause_tables(evaluations, training)
    sections = [build_section(one, number=n) for n, one in enumerate(evaluations)]
    panels = build_curves(curves)
    pictures = {name: one for section in sections for name, one in section.pictures.items()}
    pictures |= {f"loss-{number}": panel.picture for number, panel in enumerate(panels)}
    write_numbers(data_folder(out), evaluations, curves, clauses, pictures)
    page = _render(
        sections,
        panels,
        facts=facts,
        title=title,
        data=data_folder(out).name,
        published=published,
        clauses=clauses,
        unread=training.unread,
    )
    write_text_atomic(out, page)
    return verdict_lines(evaluations)


def verdict_lines(sections: Sequence[Evaluation]) -> list[str]:
    """Return what the report says first, as text: a line a model, and below it one a group."""
    lines = []
    for section in sections:
        prefix = f"{section.first.name}: " if len(sections) > 1 else ""
        lines += [f"{prefix}DIFFERENT PROTOCOLS: {one}" for one in section.protocol_differences]
        if section.single is not None:
            lines.append(f"{prefix}{section.first.model.label}: {section.single}")
        for line in section.changes:
            compared = f"{line.label}, compared with {section.first.model.label}"
            lines += _finding_lines(
                prefix + compared, line.change, section.change_by_group(line.label)
            )
        for asked in section.contrasts:
            lines += _finding_lines(prefix + asked.name, asked.overall, asked.told_by_group)
        lines += [f"{prefix}CAUTION: {one}" for one in evaluation_caveats(section)]
    return lines


def _finding_lines(
    name: str, overall: Finding | None, by_group: Mapping[str, Finding]
) -> list[str]:
    assert overall is not None, "the first arm has no change"
    groups = [f"  {group}: {one.text}" for group, one in by_group.items()]
    return [f"{name}: {overall.text}", *groups]


def render_report(
    results: Sequence[EvalResult],
    *,
    curves: Sequence[LossCurve] = (),
    facts: Sequence[StageFact] = (),
    contrasts: Sequence[str] = (),
    title: str,
) -> str:
    """Return the page; every text from outside is escaped."""
    sections = [build_section(one, number=n) for n, one in enumerate(compare(results, contrasts))]
    return _render(sections, build_curves(curves), facts=facts, title=title)


def _render(
    sections: Sequence[Section],
    curves: Sequence[CurvePanel],
    *,
    facts: Sequence[StageFact],
    title: str,
    data: str | None = None,
    published: Sequence[BesidePublished] = (),
    clauses: Sequence[ClauseTable] = (),
    unread: Sequence[str] = (),
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evals.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "signed": signed,
        "shown": _shown,
        "p_value": _p_value,
        "change": _change,
        "plain": _plain,
        "duration": _duration,
        "code_spans": _code_spans,
        "breakable": _breakable,
    }
    evaluations = [section.evaluation for section in sections]
    arms = [of_arm for one in evaluations for of_arm in one.arms.values()]
    models = {result.model.label: result.model for of_arm in arms for result in of_arm}
    transcripts, items = transcripts_of(evaluations), browsable(evaluations)
    script = files("evals.report").joinpath("templates", SCRIPT).read_text(encoding="utf-8")
    context: dict[str, object] = {
        "title": title,
        "made": _made(),
        "light": LIGHT,
        "dark": DARK,
        "most_seeds": max(line.num_seeds for one in evaluations for line in one.groups[None]),
        "sections": sections,
        "max_groups": MAX_GROUPS_TOLD,
        "max_changes_open": MAX_CHANGES_OPEN,
        "trained": [training_of(model) for model in models.values()],
        "unmatched": unmatched(models.values()),
        "curves": curves,
        "facts": facts,
        "total_s": sum(fact.seconds or 0 for fact in facts),
        "data": data,
        "published": published,
        "clauses": clauses,
        "unread": unread,
        "num_transcripts": len(transcripts),
        "transcripts": json_block({"rows": transcripts}),
        "num_items": len(items["rows"]),
        "items": json_block(items),
        "script": Markup(script),
    }
    return environment.get_template(TEMPLATE).render(context)


def _made() -> str:
    """Say when, by which commit and with which versions the report was written."""
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    commit = source_commit(Path(__file__))
    versions = [f"{name} {number}" for name, number in installed_versions().items()]
    return ", ".join([now, *([f"commit {commit}"] if commit else ()), *versions])


def _code_spans(text: str) -> Markup:
    """Escape a text, then set what stands between backticks as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"  # noqa: RUF001


def _change(change: Interval) -> str:
    """Return a change, with its interval where it has one."""
    return f"{change.estimate:+.2f}" if change.low is None else signed(change)


def _plain(level: Interval) -> str:
    """Return a level as published ones are written, without a sign."""
    if level.low is None or level.high is None:
        return f"{level.estimate:.2f}"
    return f"{level.estimate:.2f} [{level.low:.2f}, {level.high:.2f}]"


def _breakable(label: str) -> Markup:
    """Escape an arm's name, which may be broken where its parts begin."""
    return Markup(re.sub(r"(?=[+\[])", "<wbr>", str(escape(label))))


def _shown(summary: Summary, unit: str) -> str:
    """Return a level: shares in percent, all else with its sign."""
    if unit != "share":
        return signed(summary)
    if summary.low is None or summary.high is None:
        return f"{summary.estimate:.0%}"
    return f"{summary.estimate:.0%} [{summary.low:.0%}, {summary.high:.0%}]"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
