"""The report's pictures, as inline SVG.

Drawn narrow (a phone's width) and one subject a picture; the page sets them side by side where it
has room. Text stays text, and colours are the page's CSS variables, so that a dark page has light
lines. matplotlib knows only fixed colours: each stands in for a variable and is replaced.
"""

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evals.report.inputs import LossCurve
from evals.visible_text import visible
from megatron_msm.formats.eval_result import Interval

INK, MUTED, LINE, ACCENT, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    ACCENT: "--accent",
    SECOND: "--none",
}
LIGHT = {
    "--paper": "#fbfaf7",
    "--card": "#ffffff",
    "--ink": "#1d2129",
    "--muted": "#5f6672",
    "--line": "#c9ccd3",
    "--accent": "#1f5fbf",
    "--none": "#8a6212",
}
"""Colours of the light page, and of the pictures that stand beside it as files."""

WIDTH_IN = 4.4
SVG = "http://www.w3.org/2000/svg"
XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
MAX_LABEL_CHARS = 30
SMOOTHING_STEPS = 20
"""From this many steps on, a moving average is drawn over the single steps."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib and is wide; the page sets its own
    "font.size": 10,
    "text.parse_math": False,  # a label with dollar signs is a label
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Whisker:
    """One line of a dot-and-whisker plot."""

    label: str
    interval: Interval
    is_reference: bool
    """Drawn muted: the others are compared with it."""


def loss_figure(curve: LossCurve, *, prefix: str) -> Markup:
    """Draw loss over steps; with many steps, single ones faint under their moving average.

    Args:
        curve: The curve.
        prefix: Put before the SVG's ids, which must be unique in the page.
    """
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height_in=2.7)
        smoothed = len(curve.steps) >= SMOOTHING_STEPS
        marker = "o" if len(curve.steps) == 1 else None
        axes.plot(
            curve.steps,
            curve.losses,
            color=ACCENT,
            marker=marker,
            linewidth=0.8 if smoothed else 1.8,
            alpha=0.4 if smoothed else 1.0,
        )
        if smoothed:
            axes.plot(curve.steps, moving_average(curve.losses), color=ACCENT, linewidth=2.0)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss, nats per token")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="y", color=LINE, linewidth=0.6, alpha=0.6)
        return to_svg(figure, prefix, f"Loss by step in phase {curve.phase}")


def moving_average(losses: Sequence[float]) -> list[float]:
    """Return the centred mean of the finite losses over a twentieth of the curve."""
    reach = max(1, len(losses) // 40)
    averages = []
    for position in range(len(losses)):
        near = losses[max(0, position - reach) : position + reach + 1]
        finite = [loss for loss in near if math.isfinite(loss)]
        averages.append(math.fsum(finite) / len(finite) if finite else math.nan)
    return averages


def whisker_figure(
    whiskers: Sequence[Whisker],
    *,
    x_label: str,
    x_range: tuple[float, float],
    prefix: str,
    description: str,
) -> Markup:
    """Draw estimates with their intervals, one a line, and the zero line.

    Labels and numbers stand above their whisker, so no label is cut off on a phone.
    """
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height_in=0.62 + 0.48 * len(whiskers))
        axes.set_xlim(*x_range)
        axes.set_ylim(len(whiskers) - 0.45, -0.65)
        for line, whisker in enumerate(whiskers):
            _draw_whisker(axes, line, whisker)
        axes.set_xlabel(x_label)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return to_svg(figure, prefix, description)


def shared_range(intervals: Sequence[Interval]) -> tuple[float, float]:
    """Return an x range that holds all intervals and zero, with a margin."""
    ends = [0.0]
    for interval in intervals:
        ends += [end for end in (interval.low, interval.estimate, interval.high) if end is not None]
    margin = 0.06 * (max(ends) - min(ends)) or 1.0
    return min(ends) - margin, max(ends) + margin


def shorten(label: str, max_chars: int = MAX_LABEL_CHARS) -> str:
    """Cut a label to what fits into a picture; tables show it whole."""
    label = visible(label)
    return label if len(label) <= max_chars else label[: max_chars - 1] + "…"


def _draw_whisker(axes: Axes, line: int, whisker: Whisker) -> None:
    # The zero line stops where the labels are, so that it strikes none of them through.
    axes.plot([0, 0], [line - 0.15, line + 0.3], color=MUTED, linewidth=1.2, zorder=1)
    color = MUTED if whisker.is_reference else ACCENT
    interval = whisker.interval
    numbers = f"{interval.estimate:+.2f}"
    if interval.low is not None and interval.high is not None:
        numbers += f"  [{interval.low:+.2f}, {interval.high:+.2f}]"
        axes.plot([interval.low, interval.high], [line, line], color=color, linewidth=2.4)
    axes.plot([interval.estimate], [line], color=color, marker="o", markersize=7)
    sides = {"left": (0.0, shorten(whisker.label), INK), "right": (1.0, numbers, MUTED)}
    for side, (x, text, text_color) in sides.items():
        axes.text(
            x,
            line - 0.24,
            text,
            transform=axes.get_yaxis_transform(),
            ha=side,
            va="bottom",
            color=text_color,
        )


def canvas(*, height_in: float, width_in: float = WIDTH_IN) -> tuple[Figure, Axes]:
    """Return an empty figure of this size, and its axes."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def to_svg(figure: Figure, prefix: str, description: str) -> Markup:
    """Return the figure as an SVG element without metadata, fixed size or ids of other figures."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": prefix}), warnings.catch_warnings():
        # Glyphs that matplotlib's font lacks: the text stays text, and the browser has fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())  # our own output
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        for name, value in list(element.attrib.items()):
            element.attrib[name] = _themed(value).replace("url(#", f"url(#{prefix}-")
        if "id" in element.attrib:
            element.attrib["id"] = f"{prefix}-{element.attrib['id']}"
        if XLINK_HREF in element.attrib:
            target = element.attrib.pop(XLINK_HREF).removeprefix("#")
            element.attrib["href"] = f"#{prefix}-{target}"
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": visible(description)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # ElementTree has escaped it


def standalone(svg: Markup) -> str:
    """Return a picture of the page as the content of an SVG file, in the light page's colours."""
    text = str(svg).replace("<svg ", f'<svg xmlns="{SVG}" ', 1)
    for variable, color in LIGHT.items():
        text = text.replace(f"var({variable})", color)
    return text


def _themed(value: str) -> str:
    for color, variable in CSS_VARIABLES.items():
        value = value.replace(color, f"var({variable})")
    return value
