"""`--require NAME>=VALUE`: thresholds that a corpus must meet before it is trained on."""

import operator
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from data_prep.health.figures import Figure, HealthReport
from megatron_msm.errors import ConfigError
from megatron_msm.formats.json_types import JsonRow

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_GATE = re.compile(r"\s*([a-z0-9_]+)\s*(>=|<=|>|<)\s*([0-9]*\.?[0-9]+)(%?)\s*")


class Gate(NamedTuple):
    """One threshold."""

    text: str
    """As it was given."""
    name: str
    sign: str
    limit: float


class Verdict(NamedTuple):
    """A gate held to one corpus, or to the contrast."""

    gate: str
    where: str
    value: float
    shown: str
    is_met: bool

    def as_json(self) -> JsonRow:
        """Return what `--json` prints."""
        return {"gate": self.gate, "of": self.where, "value": self.value, "is_met": self.is_met}


def parse_gate(text: str) -> Gate:
    """Read `attribution>=0.65` or `attribution>=65%`.

    Raises:
        ConfigError: It is not of that form.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--require {text!r}: needed is NAME>=VALUE (or <=, >, <), for example "
            "'attribution>=0.65', in quotes."
        )
    name, sign, number, percent = match.groups()
    return Gate(text, name, sign, float(number) / (100 if percent else 1))


def judge(report: HealthReport, gates: Sequence[Gate]) -> list[Verdict]:
    """Hold every gate to each corpus, or to the contrast if the figure is one of it.

    Raises:
        ConfigError: There is no such figure, or it was not measured.
    """
    found = [(corpus.name, figure) for corpus in report.corpora for figure in corpus.figures]
    found += [("both arms", figure) for part in report.contrast for figure in part.figures]
    verdicts = []
    for gate in gates:
        held = [(where, figure) for where, figure in found if figure.name == gate.name]
        if not held:
            names = ", ".join(dict.fromkeys(figure.name for _, figure in found))
            raise ConfigError(f"--require {gate.text!r}: no such figure here. There are {names}.")
        verdicts += [_verdict(gate, where, figure) for where, figure in held]
    return verdicts


def _verdict(gate: Gate, where: str, figure: Figure) -> Verdict:
    if figure.value is None:
        raise ConfigError(
            f"--require {gate.text!r}: {figure.name} was not measured of {where}: {figure.note}."
        )
    is_met = _COMPARE[gate.sign](figure.value, gate.limit)
    return Verdict(gate.text, where, figure.value, figure.text, is_met)
