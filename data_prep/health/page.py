"""The report as one HTML file: styles inside, no scripts, nothing from the network."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import jinja2

from data_prep.health.figures import HealthReport
from data_prep.health.gates import Verdict
from data_prep.health.published import PUBLISHED
from megatron_msm.formats.files import write_text_atomic

_TEMPLATE = "health.html.j2"


def write_page(out: Path, report: HealthReport, verdicts: Sequence[Verdict]) -> None:
    """Write the page; every text of the corpus is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("data_prep.health").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    blocks = list(zip(*(corpus.sections for corpus in report.corpora), strict=True))
    page = environment.from_string(source).render(
        title="Corpus health: " + " and ".join(corpus.name for corpus in report.corpora),
        report=report,
        blocks=blocks,
        verdicts=verdicts,
        published=PUBLISHED,
    )
    write_text_atomic(out, page)
