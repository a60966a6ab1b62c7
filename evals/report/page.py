"""One HTML file that tells what a run did: readable offline, on a phone, in ten years.

No scripts, no fonts, no CDN: styles and pictures are inside. Given up for it: zooming into curves;
TensorBoard does that from the same metrics.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from evals.report.figures import Whisker, loss_figure, shared_range, shorten, whisker_figure
from evals.report.inputs import LossCurve, StageFact, load_curve, load_facts, load_results
from evals.statistics.intervals import Interval
from evals.statistics.paired import paired_difference, verdict
from evals.tasks.choice.result import ChoiceResult, Summary
from megatron_msm.formats.files import write_text_atomic

TEMPLATE = "report.html.j2"
ALL_ITEMS = "all items"
AXIS_LABEL_CHARS = 16


@dataclass(frozen=True)
class ModelLine:
    """One model's numbers on one tier."""

    label: str
    is_reference: bool
    summary: Summary
    change: Interval | None
    """Paired difference to the first result; None for the first itself."""


@dataclass(frozen=True)
class TierPanel:
    """One tier: a picture and a table."""

    name: str
    lines: tuple[ModelLine, ...]
    level_svg: Markup
    change_svg: Markup | None


@dataclass(frozen=True)
class Verdict:
    """What one model's change against the first shows, over all items and by tier."""

    label: str
    text: str
    shows_effect: bool
    by_tier: tuple[str, ...]


@dataclass(frozen=True)
class CurvePanel:
    """One training phase's loss."""

    curve: LossCurve
    svg: Markup


def write_report(
    out: Path,
    *,
    choice_paths: Sequence[Path],
    metrics: Sequence[str] = (),
    title: str,
    facts_path: Path | None = None,
) -> list[str]:
    """Read everything, then write the report in one go; return its verdicts as lines of text.

    Args:
        out: The HTML file.
        choice_paths: Results; the first is what others are compared with.
        metrics: `PHASE=metrics.jsonl` for each loss curve.
        title: The heading.
        facts_path: A JSON list of `StageFact`.

    Raises:
        MsmError: An input is broken or two results were not measured alike.
    """
    results = load_results(list(choice_paths))
    curves = [load_curve(argument) for argument in metrics]
    facts = load_facts(facts_path) if facts_path else []
    write_text_atomic(out, render_report(results, curves=curves, facts=facts, title=title))
    return verdict_lines(results)


def verdict_lines(results: Sequence[ChoiceResult]) -> list[str]:
    """Return what the report says first, as text: a line a model, and below it one a tier."""
    first = results[0]
    if len(results) == 1:
        return [f"{first.model.label}: {_single_verdict(first)}"]
    lines = []
    for result in results[1:]:
        judged = _verdict(first, result)
        lines.append(f"{judged.label}, compared with {first.model.label}: {judged.text}")
        if len(judged.by_tier) > 1:
            lines += [f"  {line}" for line in judged.by_tier]
    return lines


def render_report(
    results: Sequence[ChoiceResult],
    *,
    curves: Sequence[LossCurve] = (),
    facts: Sequence[StageFact] = (),
    title: str,
) -> str:
    """Return the page; every text from outside is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "signed": _signed,
        "percent": _percent,
        "duration": _duration,
        "code_spans": _code_spans,
    }
    source = files("evals.report").joinpath("templates", TEMPLATE).read_text(encoding="utf-8")
    context: dict[str, Any] = {
        "title": title,
        "first": results[0],
        "results": results,
        "verdicts": [_verdict(results[0], result) for result in results[1:]],
        "single": _single_verdict(results[0]) if len(results) == 1 else None,
        "panels": tier_panels(results),
        "curves": [
            CurvePanel(curve, loss_figure(curve, prefix=f"loss{number}"))
            for number, curve in enumerate(curves)
        ],
        "facts": facts,
        "total_s": sum(fact.seconds or 0 for fact in facts),
    }
    return environment.from_string(source).render(context)


def tier_panels(results: Sequence[ChoiceResult]) -> list[TierPanel]:
    """Return all items and then each tier; all pictures of a kind share one scale."""
    names: list[str | None] = [None, *results[0].tiers]
    table = {name: _lines(results, name) for name in names}
    lines = [line for rows in table.values() for line in rows]
    levels = shared_range([line.summary.log_odds for line in lines])
    changes = shared_range([line.change for line in lines if line.change is not None])
    panels = []
    for number, (tier, rows) in enumerate(table.items()):
        name = ALL_ITEMS if tier is None else tier
        level = whisker_figure(
            [Whisker(line.label, line.summary.log_odds, line.is_reference) for line in rows],
            x_label=_axis_label("mean log-odds", results[0]),
            x_range=levels,
            prefix=f"level{number}",
            description=f"Mean log-odds by model, {name}",
        )
        changed = [Whisker(row.label, row.change, False) for row in rows if row.change is not None]
        change = whisker_figure(
            changed,
            x_label=_axis_label("change", results[0]),
            x_range=changes,
            prefix=f"change{number}",
            description=f"Change in log-odds from the first model, {name}",
        )
        panels.append(TierPanel(name, rows, level, change if changed else None))
    return panels


def _axis_label(what: str, result: ChoiceResult) -> str:
    other, target = (shorten(label, AXIS_LABEL_CHARS) for label in (result.other, result.target))
    return f"← {other} · {what} · {target} →"


def _lines(results: Sequence[ChoiceResult], tier: str | None) -> tuple[ModelLine, ...]:
    return tuple(
        ModelLine(
            label=result.model.label,
            is_reference=result is results[0],
            summary=result.overall if tier is None else result.tiers[tier],
            change=None
            if result is results[0]
            else paired_difference(results[0], result, tier=tier),
        )
        for result in results
    )


def _verdict(first: ChoiceResult, result: ChoiceResult) -> Verdict:
    change = paired_difference(first, result)
    tiers = {tier: paired_difference(first, result, tier=tier) for tier in first.tiers}
    return Verdict(
        label=result.model.label,
        text=verdict(change, target=first.target, other=first.other),
        shows_effect=change.is_above_zero or change.is_below_zero,
        by_tier=tuple(
            f"{tier}: {verdict(difference, target=first.target, other=first.other)}"
            for tier, difference in tiers.items()
        ),
    )


def _single_verdict(result: ChoiceResult) -> str:
    log_odds = result.overall.log_odds
    preferred = result.target if log_odds.is_above_zero else result.other
    if not (log_odds.is_above_zero or log_odds.is_below_zero):
        return f"no preference shown, mean log-odds {_signed(log_odds)}: the interval includes zero"
    return f"prefers `{preferred}`, mean log-odds {_signed(log_odds)}"


def _code_spans(text: str) -> Markup:
    """Escape a text, then set what stands between backticks as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _signed(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:+.2f} (no interval)"
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _percent(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.0%}"
    return f"{interval.estimate:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
