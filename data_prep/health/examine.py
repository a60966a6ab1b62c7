"""One corpus, or two arms of a contrast, examined by every measurement there is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.cleaning.contamination import match_items, read_items
from data_prep.cleaning.corpus import CorpusText
from data_prep.cleaning.word_ngrams import WordNgrams
from data_prep.health.arm_balance import measure_balance
from data_prep.health.base_model import BaseModel
from data_prep.health.composition import measure_composition, measure_size
from data_prep.health.corpus import Corpus, HealthDocument, read_documents
from data_prep.health.density import measure_density
from data_prep.health.diversity import measure_diversity
from data_prep.health.figures import CorpusHealth, Figure, HealthReport, Section, Table
from data_prep.health.frames import measure_frames
from data_prep.health.initial_loss import TextLoss, loss_contrast, loss_section, text_losses
from data_prep.health.names import measure_names
from data_prep.health.near_duplicates import measure_near_duplicates
from data_prep.health.separability import measure_separability
from data_prep.health.values import HealthValues
from megatron_msm.progress import Progress

_ITEM_RUN = 8
_ITEM_OVERLAP = 0.5
"""The default of `msm prep contamination`."""
_SHOWN = 10
_MEASUREMENTS = 8


@dataclass(frozen=True)
class Arm:
    """A corpus to examine."""

    name: str
    inputs: Sequence[Path]
    values: HealthValues | None


@dataclass(frozen=True)
class HealthOptions:
    """What to examine, and how."""

    arms: Sequence[Arm]
    """One, or two to be compared."""
    items: Path | None
    """Evaluation items that the corpus should not repeat."""
    model: Path | None
    loss_documents: int
    """Documents of each arm for the initial loss."""
    window: int
    """Sentences within which value, behaviour and reason must stand together."""
    sample: int
    """Most documents for what takes long."""
    text_field: str


def examine(options: HealthOptions, *, progress: Progress) -> HealthReport:
    """Measure everything.

    Args:
        options: What to examine.
        progress: Told each byte read, in a step that has begun; then begins the one that is told
            each measurement and each text of the initial loss.

    Raises:
        MsmError: An input cannot be read, or the model cannot be opened.
    """
    items = None if options.items is None else read_items(options.items)
    numbers = WordNgrams()
    corpora = []
    for arm in options.arms:
        documents = read_documents(arm.inputs, text_field=options.text_field, progress=progress)
        corpora.append(Corpus(arm.name, documents, most=options.sample, numbers=numbers))
    progress.start("measure", _num_steps(options), unit="measurements")
    scorer = None if options.model is None else BaseModel(options.model)
    health, losses = [], []
    for arm, corpus in zip(options.arms, corpora, strict=True):
        sections = _sections(corpus, arm.values, items, options.window, progress)
        loss = (
            None
            if scorer is None
            else text_losses(corpus, scorer, most=options.loss_documents, progress=progress)
        )
        losses.append(loss)
        sections.append(loss_section(loss, scorer))
        health.append(CorpusHealth(arm.name, [str(path) for path in arm.inputs], sections))
    contrast = _contrast(corpora, options.arms, losses, progress) if len(corpora) == 2 else []
    return HealthReport(health, contrast)


def _num_steps(options: HealthOptions) -> int:
    """Return about how many measurements and texts of the initial loss there will be."""
    arms = len(options.arms)
    losses = 0 if options.model is None else options.loss_documents
    return arms * (_MEASUREMENTS + losses) + (2 if arms == 2 else 0)


def _sections(
    corpus: Corpus,
    values: HealthValues | None,
    items: list[CorpusText] | None,
    window: int,
    progress: Progress,
) -> list[Section]:
    measurements: tuple[Callable[[], Section], ...] = (
        lambda: measure_size(corpus),
        lambda: measure_density(corpus, values, window=window),
        lambda: measure_diversity(corpus),
        lambda: measure_frames(corpus),
        lambda: measure_near_duplicates(corpus),
        lambda: measure_names(corpus, values),
        lambda: measure_composition(corpus, values),
        lambda: _contamination(corpus, items),
    )
    assert len(measurements) == _MEASUREMENTS
    sections = []
    for measure in measurements:
        sections.append(measure())
        progress.advance(1)
    return sections


def _contrast(
    corpora: Sequence[Corpus],
    arms: Sequence[Arm],
    losses: Sequence[list[TextLoss] | None],
    progress: Progress,
) -> list[Section]:
    one, other = corpora
    values = [arm.values for arm in arms if arm.values is not None]
    balance = measure_balance(one, other, values)
    progress.advance(1)
    separability = measure_separability(one, other, values)
    progress.advance(1)
    first, second = losses
    both = None if first is None or second is None else (first, second)
    return [separability, balance, loss_contrast(both)]


def _contamination(corpus: Corpus, items: list[CorpusText] | None) -> Section:
    title = f"documents that hold half of an item's runs of {_ITEM_RUN} words"
    if items is None:
        figure = Figure("contaminated", title, None, "share", "needs --items")
        return Section("Evaluation items", [figure])
    rows = (_as_text(document) for document in corpus.documents)
    found = match_items(rows, items, size=_ITEM_RUN, overlap=_ITEM_OVERLAP, num_worst=_SHOWN)
    note = f"{found.num_items - found.too_short:,} items"
    if found.too_short:
        note += f"; {found.too_short:,} of under three words not looked for"
    figures = [
        Figure("contaminated", title, found.rows_above / found.num_rows, "share", note),
        Figure("items_repeated", "items that are repeated", len(found.items_above), "count", note),
    ]
    worst = [(match.row.where, match.item.where, f"{match.overlap:.0%}") for match in found.worst]
    table = Table("repeated_items", "Nearest to an item", ("row", "item", "overlap"), worst)
    return Section("Evaluation items", figures, [table] if worst else [])


def _as_text(document: HealthDocument) -> CorpusText:
    return CorpusText(document.number, document.where, document.text, {}, amount=0)
