"""One HTML file that tells what a run did: readable offline, on a phone, in ten years.

No fonts, no CDN: styles and pictures are inside, and one small script where there are transcripts
to filter. Given up for it: zooming into curves; TensorBoard does that from the same metrics.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from evals.report.comparison import Evaluation, Line, compare, signed
from evals.report.figures import (
    LIGHT,
    Whisker,
    loss_figure,
    shared_range,
    shorten,
    whisker_figure,
)
from evals.report.findings import Finding
from evals.report.heat_map import HeatMap, heat_map
from evals.report.inputs import LossCurve, StageFact, load_curve, load_facts, load_results
from evals.report.number_files import data_folder, write_numbers
from evals.report.published import BesidePublished, lay_beside
from evals.report.transcripts import json_block, transcripts_of
from megatron_msm.formats.eval_result import EvalResult, Metric, Summary
from megatron_msm.formats.files import write_text_atomic

TEMPLATE, SCRIPT = "report.html.j2", "transcripts.js"
ALL_ITEMS = "all items"
AXIS_LABEL_CHARS = 16
MAX_GROUP_PICTURES = 6
"""With more groups the heat map and the table show them, and no picture each."""


@dataclass(frozen=True)
class GroupPanel:
    """One group: a picture and a table."""

    name: str
    lines: tuple[Line, ...]
    level_svg: Markup | None
    change_svg: Markup | None


@dataclass(frozen=True)
class Section:
    """One evaluation on the page."""

    evaluation: Evaluation
    first: EvalResult
    panels: list[GroupPanel]
    heat: HeatMap | None

    @property
    def pictures(self) -> dict[str, Markup]:
        """By file name, without its suffix."""
        found = {"groups": self.heat.svg if self.heat else None}
        for number, panel in enumerate(self.panels):
            found |= {f"level-{number}": panel.level_svg, f"change-{number}": panel.change_svg}
        return {f"{self.first.name}-{name}": svg for name, svg in found.items() if svg}


@dataclass(frozen=True)
class CurvePanel:
    """One training phase's loss."""

    curve: LossCurve
    svg: Markup


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
        metrics: `PHASE=metrics.jsonl` for each loss curve.
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
    published = [lay_beside(evaluations, asked) for asked in references]
    curves = [load_curve(argument) for argument in metrics]
    facts = load_facts(facts_path) if facts_path else []
    sections, panels = _sections(evaluations), _curve_panels(curves)
    pictures = {name: svg for section in sections for name, svg in section.pictures.items()}
    pictures |= {f"loss-{number}": panel.svg for number, panel in enumerate(panels)}
    write_numbers(data_folder(out), evaluations, curves, pictures)
    data = data_folder(out).name
    page = _render(sections, panels, facts=facts, title=title, data=data, published=published)
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
            lines += _finding_lines(prefix + asked.name, asked.overall, asked.by_group)
    return lines


def _finding_lines(
    name: str, overall: Finding | None, by_group: Mapping[str, Finding]
) -> list[str]:
    assert overall is not None, "the first arm has no change"
    groups = [f"  {group}: {one.text}" for group, one in by_group.items()]
    return [f"{name}: {overall.text}", *(groups if len(groups) > 1 else ())]


def render_report(
    results: Sequence[EvalResult],
    *,
    curves: Sequence[LossCurve] = (),
    facts: Sequence[StageFact] = (),
    contrasts: Sequence[str] = (),
    title: str,
) -> str:
    """Return the page; every text from outside is escaped."""
    sections = _sections(compare(results, contrasts))
    return _render(sections, _curve_panels(curves), facts=facts, title=title)


def _sections(evaluations: Sequence[Evaluation]) -> list[Section]:
    return [
        Section(
            one,
            one.first,
            group_panels(one, prefix=f"e{number}"),
            heat_map(one, prefix=f"e{number}heat") if len(one.groups) > 2 else None,
        )
        for number, one in enumerate(evaluations)
    ]


def _curve_panels(curves: Sequence[LossCurve]) -> list[CurvePanel]:
    return [
        CurvePanel(curve, loss_figure(curve, prefix=f"loss{number}"))
        for number, curve in enumerate(curves)
    ]


def _render(
    sections: Sequence[Section],
    curves: Sequence[CurvePanel],
    *,
    facts: Sequence[StageFact],
    title: str,
    data: str | None = None,
    published: Sequence[BesidePublished] = (),
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
        "duration": _duration,
        "code_spans": _code_spans,
    }
    evaluations = [section.evaluation for section in sections]
    arms = [of_arm for one in evaluations for of_arm in one.arms.values()]
    models = {result.model.label: result.model for of_arm in arms for result in of_arm}
    transcripts = transcripts_of(evaluations)
    script = files("evals.report").joinpath("templates", SCRIPT).read_text(encoding="utf-8")
    context: dict[str, Any] = {
        "title": title,
        "light": LIGHT,
        "most_seeds": max(map(len, arms)),
        "sections": sections,
        "models": models.values(),
        "curves": curves,
        "facts": facts,
        "total_s": sum(fact.seconds or 0 for fact in facts),
        "data": data,
        "published": published,
        "num_transcripts": len(transcripts),
        "transcripts": json_block(transcripts),
        "script": Markup(script),
    }
    return environment.get_template(TEMPLATE).render(context)


def group_panels(evaluation: Evaluation, *, prefix: str) -> list[GroupPanel]:
    """Return all items and then each group; all pictures of a kind share one scale."""
    metric = evaluation.first.headline_metric
    table = evaluation.groups
    lines = [line for rows in table.values() for line in rows]
    levels = shared_range([line.summary for line in lines])
    changes = shared_range([line.change.interval for line in lines if line.change is not None])
    panels = []
    for number, (group, rows) in enumerate(table.items()):
        name = ALL_ITEMS if group is None else group
        if group is not None and len(table) - 1 > MAX_GROUP_PICTURES:
            panels.append(GroupPanel(name, rows, None, None))
            continue
        level = whisker_figure(
            [Whisker(line.label, line.summary, line.change is None) for line in rows],
            x_label=_axis_label(metric.title, metric),
            x_range=levels,
            prefix=f"{prefix}level{number}",
            description=f"{metric.title} by model, {name}",
        )
        changed = [
            Whisker(row.label, row.change.interval, False) for row in rows if row.change is not None
        ]
        change = whisker_figure(
            changed,
            x_label=_axis_label("change", metric),
            x_range=changes,
            prefix=f"{prefix}change{number}",
            description=f"Change in {metric.title} from the first model, {name}",
        )
        panels.append(GroupPanel(name, rows, level, change if changed else None))
    return panels


def _axis_label(what: str, metric: Metric) -> str:
    lower, higher = (
        shorten(p, AXIS_LABEL_CHARS) for p in (metric.lower_means, metric.higher_means)
    )
    return f"← {lower} · {what} · {higher} →" if lower and higher else f"{what}, {metric.unit}"


def _code_spans(text: str) -> Markup:
    """Escape a text, then set what stands between backticks as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"  # noqa: RUF001


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
