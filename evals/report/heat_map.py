"""One evaluation's headline by arm and group, as a grid of coloured cells.

Cells are shaded by the page's accent above zero and by its second colour below, each the stronger
the farther from zero; the number stands in every cell, so that nothing rests on colour alone.
"""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from evals.report.comparison import Evaluation
from evals.report.figures import shorten
from evals.report.pictures import ACCENT, INK, SECOND, STYLE, Picture, canvas

CELL_IN = (0.74, 0.3)
LABEL_CHARS = 28
MAX_SHADE = 0.55
"""So that text on the strongest shade is still read."""


def heat_map(evaluation: Evaluation, *, prefix: str) -> Picture:
    """Draw the groups as rows and the arms as columns.

    Args:
        evaluation: Has at least one group.
        prefix: Put before the SVG's ids, which must be unique in the page.
    """
    metric = evaluation.first.headline_metric
    groups = {name: lines for name, lines in evaluation.groups.items() if name is not None}
    labels = [line.label for line in evaluation.groups[None]]
    values = {name: [line.summary.estimate for line in lines] for name, lines in groups.items()}
    farthest = max(abs(value) for row in values.values() for value in row) or 1.0
    label_chars = max(len(shorten(label, LABEL_CHARS)) for label in labels)
    name_chars = max(len(shorten(name, LABEL_CHARS)) for name in values)
    width = 0.2 + 0.085 * name_chars + CELL_IN[0] * len(labels)
    height = 0.3 + 0.075 * label_chars + CELL_IN[1] * len(values)
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height_in=height, width_in=width)
        for y, row in enumerate(values.values()):
            for x, value in enumerate(row):
                _draw_cell(axes, x, y, value, farthest, is_share=metric.unit == "share")
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_xticks(range(len(labels)), [shorten(one, LABEL_CHARS) for one in labels])
        axes.tick_params(length=0, labelcolor=INK)
        axes.xaxis.tick_top()
        for tick in axes.get_xticklabels():
            tick.set(rotation=50, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(values)), [shorten(one, LABEL_CHARS) for one in values])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return Picture(figure, prefix, f"{metric.title} by group and model")


def _draw_cell(
    axes: Axes, x: int, y: int, value: float, farthest: float, *, is_share: bool
) -> None:
    color = ACCENT if value >= 0 else SECOND
    shade = MAX_SHADE * abs(value) / farthest
    axes.add_patch(
        Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=color, alpha=shade, linewidth=0)
    )
    text = f"{value:.0%}" if is_share else f"{value:+.2f}"
    axes.text(x, y, text, ha="center", va="center", color=INK, fontsize=9)
