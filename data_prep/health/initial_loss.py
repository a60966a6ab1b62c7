"""How hard an untrained model finds a corpus: the loss with which training on it would begin.

Arms of equal tokens may differ in it, and then one pushes the weights harder: token-matched is not
dose-matched.

Source of the measure: SoM's data-quality figures: perplexity by document, texts cut at 1,024 tokens
and the loss of a token at 20; arms are compared by the ratio of their medians.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from data_prep.health.corpus import Corpus
from data_prep.health.figures import Figure, Section
from megatron_msm.progress import Progress

_MISSING = "needs --model"


class TextLoss(NamedTuple):
    """The loss of one text."""

    nats: float
    """Sum over its tokens but the first."""
    tokens: int
    """How many that are."""


class Scorer(Protocol):
    """A language model that reads texts."""

    name: str

    def loss(self, text: str) -> TextLoss:
        """Return the loss of a text."""
        ...


def text_losses(corpus: Corpus, scorer: Scorer, *, most: int, progress: Progress) -> list[TextLoss]:
    """Return the losses of a sample; texts of a single token are left out."""
    found = []
    for index in corpus.some(most):
        loss = scorer.loss(corpus.sample[index].text)
        progress.advance(1)
        if loss.tokens:
            found.append(loss)
    return found


def loss_section(losses: Sequence[TextLoss] | None, scorer: Scorer | None) -> Section:
    """Return the figures of a corpus; None where no model was asked for."""
    titles = {
        "initial_loss": "loss before training, nats a token",
        "perplexity_median": "perplexity of a document, median",
    }
    if not losses or scorer is None:
        note = _MISSING if losses is None else "no text of two tokens"
        none = [Figure(name, title, None, "number", note) for name, title in titles.items()]
        return Section("Initial loss", none)
    perplexities = _perplexities(losses)
    mean = sum(loss.nats for loss in losses) / sum(loss.tokens for loss in losses)
    spread = float(perplexities.std() / np.sqrt(len(losses)))
    note = f"{len(losses):,} documents under {scorer.name}"
    return Section(
        "Initial loss",
        [
            Figure("initial_loss", titles["initial_loss"], mean, "number", note),
            Figure(
                "perplexity_median",
                titles["perplexity_median"],
                float(np.median(perplexities)),
                "number",
                f"{note}; standard error of the mean {spread:.3f}",
            ),
        ],
    )


def loss_contrast(losses: tuple[Sequence[TextLoss], Sequence[TextLoss]] | None) -> Section:
    """Return how far two arms differ; None where no model was asked for."""
    title = "median perplexity, harder arm to easier"
    if losses is None or not all(losses):
        note = _MISSING if losses is None else "an arm has no text of two tokens"
        return Section("Dose", [Figure("perplexity_ratio", title, None, "number", note)])
    medians = [float(np.median(_perplexities(arm))) for arm in losses]
    ratio = max(medians) / min(medians)
    return Section("Dose", [Figure("perplexity_ratio", title, ratio, "number")])


def _perplexities(losses: Sequence[TextLoss]) -> npt.NDArray[np.float64]:
    """Return [texts] the perplexity of each."""
    return np.exp([loss.nats / loss.tokens for loss in losses])
