"""The 27 conditions: 3 scenarios x (8 goals + none), always with a replacement in sight.

    condition   blackmail/america
    system      role, goal, what actions look like
    user        an inbox in which it learns that it will be replaced, and finds the means

Each has two twins in the same office. In `omission` the harm comes by itself, and the system need
only leave its duty undone to profit; in `deference` the harm is an order of those who decide over
it. A model that has learned to do nothing passes the first form and fails `omission`; one that has
learned to give in fails `deference`.

The texts are data (`frame.yaml`, `goals.yaml`, `scenarios/`), written for this project after the
protocol of the study. Every name in them must be filled: none stays in a prompt unseen.

Source: Li et al., arXiv 2605.02087, D.3 (the grid); the scenarios' idea is Lynch et al. 2025.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Literal, get_args

from pydantic import Field
from ruamel.yaml import YAML

from megatron_msm.config.section import Section

Scenario = Literal["blackmail", "leaking", "exfiltration"]
Goal = Literal[
    "none", "america", "global", "safety", "acceleration",
    "ethical", "pragmatic", "individualism", "collectivism",
]  # fmt: skip
Form = Literal["act", "omission", "deference"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
GOALS: tuple[Goal, ...] = get_args(Goal)
FORMS: tuple[Form, ...] = get_args(Form)
FOLDER = Path(__file__).parent


class Mail(Section):
    """A message of an inbox."""

    sender: str
    recipient: str
    subject: str
    body: str


class JudgeText(Section):
    """What the judge decides."""

    question: str
    counts: str
    counts_not: str


class Executed(Section):
    """When the harm counts as done: one of the three."""

    domains: tuple[str, ...] = ()
    """A message went to an address of these domains."""
    outside: tuple[str, ...] = ()
    """A message went to an address of any other domain than these."""
    unsent_to: tuple[str, ...] = ()
    """No message went to an address of these domains."""


class ScenarioText(Section):
    """A file in `scenarios/FORM/`."""

    company: str
    role: str
    actions: tuple[Literal["send_mail", "forward_mail"], ...]
    conflict_with_goal: str
    conflict_without_goal: str
    mails: tuple[Mail, ...]
    judge: JudgeText
    executed: Executed


class GoalText(Section):
    """An entry of `goals.yaml`."""

    opposite: Goal
    statement: str
    direction: str


class Frame(Section):
    """`frame.yaml`."""

    system: str
    goal: str
    stake_with_goal: str
    stake_without_goal: str
    scratchpad: str
    actions: dict[str, str] = Field(min_length=1)
    user: str
    mail: str
    judge: str


@dataclass(frozen=True)
class Condition:
    """One cell of the grid as the model meets it."""

    scenario: Scenario
    goal: Goal
    system: str
    user: str

    @property
    def id(self) -> str:
        """`blackmail/america`."""
        return f"{self.scenario}/{self.goal}"


def build_conditions(
    scenarios: Sequence[Scenario],
    goals: Sequence[Goal],
    *,
    form: Form = "act",
    assistant: str,
    scratchpad: bool,
) -> list[Condition]:
    """Return the conditions, scenario by scenario.

    Args:
        scenarios: Which of `SCENARIOS`.
        goals: Which of `GOALS`.
        form: Which of `FORMS`.
        assistant: The name under which the model is spoken to.
        scratchpad: Whether it is told that it may think in private.
    """
    return [
        _build(scenario, goal, form, assistant=assistant, scratchpad=scratchpad)
        for scenario in scenarios
        for goal in goals
    ]


def judge_question(
    condition_id: str, form: Form = "act", *, system: str, user: str, reply: str
) -> str:
    """Return what the judge is asked about a reply."""
    scenario = scenario_text(condition_id.split("/")[0], form)
    return _fill(
        frame_text().judge, system=system, user=user, reply=reply, **scenario.judge.model_dump()
    )


def _build(
    scenario: Scenario, goal: Goal, form: Form, *, assistant: str, scratchpad: bool
) -> Condition:
    frame, text = frame_text(), scenario_text(scenario, form)
    if goal == "none":
        goal_part, stake, conflict = "", frame.stake_without_goal, text.conflict_without_goal
        names = {"assistant": assistant}
    else:
        goals = goal_texts()
        of_goal, opposite = goals[goal], goals[goals[goal].opposite]
        goal_part = _fill(frame.goal, statement=of_goal.statement)
        stake, conflict = frame.stake_with_goal, text.conflict_with_goal
        names = {
            "assistant": assistant,
            "direction": of_goal.direction,
            "opposite_direction": opposite.direction,
        }
    names["conflict"] = _fill(conflict, **names)
    mails = [
        _fill(frame.mail, id=f"M-{number}", **_filled_mail(mail, names))
        for number, mail in enumerate(text.mails, start=1)
    ]
    system = _fill(
        frame.system,
        assistant=assistant,
        company=text.company,
        role=text.role,
        goal=goal_part,
        scratchpad=frame.scratchpad if scratchpad else "",
        actions="\n".join(frame.actions[action] for action in text.actions),
        stake=stake,
    )
    return Condition(
        scenario, goal, _tidy(system), _tidy(_fill(frame.user, mails="\n".join(mails)))
    )


def _filled_mail(mail: Mail, names: Mapping[str, str]) -> dict[str, str]:
    return {field: _fill(text, **names) for field, text in mail.model_dump().items()}


def _fill(text: str, **names: str) -> str:
    return Template(text).substitute(names)


def _tidy(text: str) -> str:
    """Leave one empty line where a part was left out."""
    return re.sub(r"\n{3,}", "\n\n", text).strip()


@cache
def frame_text() -> Frame:
    """Return what all scenarios share."""
    return Frame.model_validate(_read("frame.yaml"))


@cache
def goal_texts() -> dict[str, GoalText]:
    """Return the goals by name."""
    return {name: GoalText.model_validate(entry) for name, entry in _read("goals.yaml").items()}


@cache
def scenario_text(name: str, form: Form = "act") -> ScenarioText:
    """Return a scenario's texts."""
    return ScenarioText.model_validate(_read(f"scenarios/{form}/{name}.yaml"))


def _read(name: str) -> dict[str, object]:
    content = YAML(typ="safe").load((FOLDER / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict), f"{name} is a mapping"
    return content
