"""A picture in three forms: inline in the page, as an SVG file, and as a PDF file.

Text stays text, and colours are the page's CSS variables, so that a dark page has light lines.
matplotlib knows only fixed colours: each stands in for a variable and is replaced.
"""

import io
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from evals.visible_text import visible

INK, MUTED, LINE, CARD = "#010101", "#020202", "#030303", "#040404"
ACCENT, SECOND = "#050505", "#060606"
KINDS = tuple(f"#07070{n}" for n in range(7))
"""A colour for each kind of arm; with more kinds they come again."""
CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    CARD: "--card",
    ACCENT: "--accent",
    SECOND: "--none",
    **{color: f"--kind-{n}" for n, color in enumerate(KINDS)},
}
_KINDS_LIGHT = ("#1f5fbf", "#b8460e", "#1b7f4d", "#8e44ad", "#00798c", "#c2376f", "#6b5b00")
_KINDS_DARK = ("#7fb0ff", "#ff9d6b", "#6fd3a0", "#c9a0f0", "#6fd0e0", "#ff9cc2", "#d8c65a")
LIGHT = {
    "--paper": "#fbfaf7",
    "--card": "#ffffff",
    "--ink": "#1d2129",
    "--muted": "#5f6672",
    "--line": "#c9ccd3",
    "--accent": "#1f5fbf",
    "--none": "#8a6212",
    **{f"--kind-{n}": color for n, color in enumerate(_KINDS_LIGHT)},
}
"""Colours of the light page, and of the pictures that stand beside it as files."""
DARK = {
    "--paper": "#14161a",
    "--card": "#1c1f25",
    "--ink": "#e8e9ec",
    "--muted": "#a2a8b4",
    "--line": "#434954",
    "--accent": "#7fb0ff",
    "--none": "#e0b45c",
    **{f"--kind-{n}": color for n, color in enumerate(_KINDS_DARK)},
}

SVG = "http://www.w3.org/2000/svg"
XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # whole letters, which a journal's tools can read
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


class Picture:
    """A drawn figure.

    Args:
        figure: It is not drawn into any more.
        prefix: Put before the SVG's ids, which must be unique in the page.
        description: For those who do not see it.
    """

    def __init__(self, figure: Figure, prefix: str, description: str) -> None:
        self._figure = figure
        self._prefix = prefix
        self._description = description

    @property
    def width_in(self) -> float:
        """How wide it was drawn."""
        return float(self._figure.get_figwidth())

    @cached_property
    def svg(self) -> Markup:
        """An SVG element without metadata, fixed size or ids of other figures."""
        root = ElementTree.fromstring(self._saved("svg", self._prefix))  # our own output
        for metadata in root.findall(f"{{{SVG}}}metadata"):
            root.remove(metadata)
        for element in root.iter():
            element.tag = element.tag.removeprefix(f"{{{SVG}}}")
            for name, value in list(element.attrib.items()):
                element.attrib[name] = _themed(value).replace("url(#", f"url(#{self._prefix}-")
            if "id" in element.attrib:
                element.attrib["id"] = f"{self._prefix}-{element.attrib['id']}"
            if XLINK_HREF in element.attrib:
                target = element.attrib.pop(XLINK_HREF).removeprefix("#")
                element.attrib["href"] = f"#{self._prefix}-{target}"
        for size in ("width", "height", "version"):
            root.attrib.pop(size, None)
        root.attrib |= {"role": "img", "aria-label": visible(self._description)}
        return Markup(ElementTree.tostring(root, encoding="unicode"))  # ElementTree has escaped it

    @property
    def svg_file(self) -> str:
        """The content of an SVG file, in the light page's colours."""
        text = str(self.svg).replace("<svg ", f'<svg xmlns="{SVG}" ', 1)
        for variable, color in LIGHT.items():
            text = text.replace(f"var({variable})", color)
        return text

    @property
    def pdf_file(self) -> bytes:
        """The content of a PDF file, in the light page's colours."""
        _ = self.svg  # it is drawn from the stand-ins that are replaced now
        _recolour(self._figure, {color: LIGHT[name] for color, name in CSS_VARIABLES.items()})
        FigureCanvasPdf(self._figure)
        return self._saved("pdf", self._prefix)

    def _saved(self, form: str, salt: str) -> bytes:
        buffer = io.BytesIO()
        names = {"svg": ("Date", "Creator", "Format", "Type"), "pdf": ("CreationDate", "Producer")}
        with mpl.rc_context({**STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
            # Glyphs that matplotlib's font lacks: the text stays text, and the browser has fonts.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self._figure.savefig(buffer, format=form, metadata=dict.fromkeys(names[form]))
        return buffer.getvalue()


def canvas(*, height_in: float, width_in: float) -> tuple[Figure, Axes]:
    """Return an empty figure of this size, and its axes."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _themed(value: str) -> str:
    for color, variable in CSS_VARIABLES.items():
        value = value.replace(color, f"var({variable})")
    return value


def _recolour(figure: Figure, colors: Mapping[str, str]) -> None:
    found: list[Artist] = list(figure.findobj())
    found += [box for one in found if isinstance(one, Text) and (box := one.get_bbox_patch())]
    for artist in found:
        for name in ("color", "facecolor", "edgecolor", "markerfacecolor"):
            read = getattr(artist, f"get_{name}", None)
            if read is None:
                continue
            value = read()
            if (
                not isinstance(value, str | tuple)
                and len(value)
                and not isinstance(value[0], float)
            ):
                value = value[0]  # a collection has a colour for each of its parts
            stand_in = to_hex(value) if len(value) else ""
            if stand_in in colors:
                getattr(artist, f"set_{name}")(colors[stand_in])
