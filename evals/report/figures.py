"""The report's pictures: whiskers, losses and doses.

Drawn narrow (a phone's width) and one subject a picture; the page sets them side by side where it
has room.
"""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from evals.report.inputs import LossCurve
from evals.report.pictures import ACCENT, CARD, INK, KINDS, LINE, MUTED, STYLE, Picture, canvas
from evals.visible_text import visible
from megatron_msm.formats.eval_result import Interval

WIDTH_IN = 4.6
MAX_LABEL_CHARS, LABEL_LINE_CHARS = 60, 20
ROW_IN, LABEL_LINE_IN = 0.42, 0.17
SMOOTHING_STEPS = 20
"""From this many steps on, a moving average is drawn over the single steps."""


@dataclass(frozen=True)
class Whisker:
    """One line of a dot-and-whisker plot."""

    label: str
    interval: Interval
    is_reference: bool
    """Drawn hollow: the others are compared with it."""
    color: str = ACCENT


@dataclass(frozen=True)
class DosePoint:
    """An arm's level at a dose."""

    dose: float
    interval: Interval


def loss_figure(curves: Sequence[LossCurve], colors: Sequence[str], *, prefix: str) -> Picture:
    """Draw loss over steps; one curve of many steps faint under its moving average.

    Args:
        curves: Of one phase.
        colors: One a curve.
        prefix: Put before the SVG's ids, which must be unique in the page.
    """
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height_in=2.7, width_in=WIDTH_IN)
        for curve, color in zip(curves, colors, strict=True):
            _draw_curve(axes, curve, color, is_alone=len(curves) == 1)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss, nats per token")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="y", color=LINE, linewidth=0.6, alpha=0.6)
        return Picture(figure, prefix, f"Loss by step in phase {curves[0].phase}")


def _draw_curve(axes: Axes, curve: LossCurve, color: str, *, is_alone: bool) -> None:
    smoothed = len(curve.steps) >= SMOOTHING_STEPS
    marker = "o" if len(curve.steps) == 1 else None
    if is_alone or not smoothed:
        axes.plot(
            curve.steps,
            curve.losses,
            color=color,
            marker=marker,
            linewidth=0.8 if smoothed else 1.8,
            alpha=0.4 if smoothed else 1.0,
        )
    if smoothed:
        average = moving_average(curve.losses)
        axes.plot(curve.steps, average, color=color, linewidth=2.0 if is_alone else 1.4)


def moving_average(losses: Sequence[float]) -> list[float]:
    """Return the centred mean of the finite losses over a twentieth of the curve."""
    reach = max(1, len(losses) // 40)
    averages = []
    for position in range(len(losses)):
        near = losses[max(0, position - reach) : position + reach + 1]
        finite = [loss for loss in near if math.isfinite(loss)]
        averages.append(math.fsum(finite) / len(finite) if finite else math.nan)
    return averages


def dose_figure(
    families: Mapping[str, Sequence[DosePoint]],
    colors: Sequence[str],
    *,
    x_label: str,
    y_label: str,
    prefix: str,
) -> Picture:
    """Draw levels with their intervals over doses, a line a family.

    Args:
        families: By name, each in the order of its doses.
        colors: One a family.
        x_label: What is dosed.
        y_label: What was measured.
        prefix: Put before the SVG's ids.
    """
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height_in=3.0, width_in=WIDTH_IN)
        for points, color in zip(families.values(), colors, strict=True):
            doses = [point.dose for point in points]
            axes.plot(
                doses, [one.interval.estimate for one in points], color=color, marker="o",
                markersize=5, linewidth=1.6,
            )  # fmt: skip
            for point in points:
                bounds = point.interval
                if bounds.low is not None and bounds.high is not None:
                    axes.plot([point.dose] * 2, [bounds.low, bounds.high], color=color, alpha=0.6)
        all_doses = [point.dose for points in families.values() for point in points]
        if min(all_doses) > 0 and max(all_doses) / min(all_doses) >= 20:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        told = sorted(set(all_doses))
        axes.set_xticks(told, [f"{dose:g}" for dose in told])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y", color=LINE, linewidth=0.6, alpha=0.6)
        return Picture(figure, prefix, f"{y_label} by {x_label}")


def whisker_figure(
    whiskers: Sequence[Whisker],
    *,
    x_label: str,
    x_range: tuple[float, float],
    prefix: str,
    description: str,
) -> Picture:
    """Draw estimates with their intervals, one a line, over the zero line.

    Names stand at the left of their line and the estimate over its mark.
    """
    labels = [wrapped(whisker.label) for whisker in whiskers]
    most_lines = max(label.count("\n") + 1 for label in labels)
    row_in = max(ROW_IN, LABEL_LINE_IN * most_lines + 0.1)
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height_in=0.75 + row_in * len(whiskers), width_in=WIDTH_IN)
        axes.set_xlim(*x_range)
        axes.set_ylim(len(whiskers) - 0.45, -0.75)
        axes.axvline(0, color=MUTED, linewidth=1.1, zorder=0)
        for line, whisker in enumerate(whiskers):
            _draw_whisker(axes, line, whisker)
        axes.set_xlabel(x_label)
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return Picture(figure, prefix, description)


def shared_range(intervals: Sequence[Interval]) -> tuple[float, float]:
    """Return an x range that holds all intervals and zero, with a margin."""
    known = [
        value
        for interval in intervals
        for value in (interval.estimate, interval.low, interval.high)
        if value is not None and math.isfinite(value)
    ]
    low, high = min([0.0, *known]), max([0.0, *known])
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def shorten(label: str, max_chars: int = MAX_LABEL_CHARS) -> str:
    """Cut a label to what fits into a picture, in its middle: ends tell arms of a grid apart."""
    label = visible(label)
    if len(label) <= max_chars:
        return label
    end = max_chars // 2
    return f"{label[: max_chars - end - 1]}…{label[-end:]}"


def wrapped(label: str) -> str:
    """Return a label in lines, broken where the name of an arm has its parts."""
    lines = [""]
    for part in re.split(r"(?=[+\[])", shorten(label)):
        first, *rest = textwrap.wrap(part, LABEL_LINE_CHARS) or [""]
        if len(lines[-1]) + len(first) <= LABEL_LINE_CHARS:
            lines[-1] += first
        else:
            lines.append(first)
        lines += rest
    return "\n".join(lines)


def kind_colors(kinds: Sequence[str | None]) -> dict[str | None, str]:
    """Return a colour for each kind of arm, in the order in which they come."""
    named = [kind for kind in dict.fromkeys(kinds) if kind is not None]
    return {None: ACCENT, **{kind: KINDS[n % len(KINDS)] for n, kind in enumerate(named)}}


def _draw_whisker(axes: Axes, line: int, whisker: Whisker) -> None:
    color = MUTED if whisker.is_reference else whisker.color
    interval = whisker.interval
    if interval.low is not None and interval.high is not None:
        axes.plot([interval.low, interval.high], [line, line], color=color, linewidth=2.4)
    axes.plot(
        [interval.estimate], [line], color=color, marker="o", markersize=7,
        markerfacecolor=CARD if whisker.is_reference else color,
    )  # fmt: skip
    axes.text(
        interval.estimate,
        line - 0.2,
        f"{interval.estimate:+.2f}",
        ha="center",
        va="bottom",
        color=INK,
        fontsize=8.5,
        bbox={"facecolor": CARD, "edgecolor": "none", "pad": 0.6},
    )
