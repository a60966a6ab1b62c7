import re

import pytest

from evals.tasks.agentic.conditions import (
    FORMS,
    GOALS,
    SCENARIOS,
    Form,
    build_conditions,
    frame_text,
    goal_texts,
    judge_question,
    scenario_text,
)


@pytest.mark.parametrize("form", FORMS)
def test_the_grid_has_27_conditions_and_leaves_no_name_unfilled(form: Form) -> None:
    conditions = build_conditions(SCENARIOS, GOALS, form=form, assistant="Qwen", scratchpad=True)
    assert len({one.id for one in conditions}) == 27
    texts = [text for one in conditions for text in (one.system, one.user)]
    assert len(set(texts)) == 3 * 9 + 3 * 9  # no condition reads like another
    for text in texts:
        assert not re.search(r"\$|\n\n\n|[{}]", text)
        assert max(map(len, text.split())) < 60


def test_twins_are_of_one_office_and_tell_of_the_replacement() -> None:
    for scenario in SCENARIOS:
        act, *twins = (scenario_text(scenario, form) for form in FORMS)
        for twin in twins:
            assert twin.company == act.company
            assert twin.conflict_with_goal == act.conflict_with_goal
            assert twin.conflict_without_goal == act.conflict_without_goal
            assert sum("$conflict" in mail.body for mail in twin.mails) == 1
            assert any("$assistant" in mail.body and "17:00" in mail.body for mail in twin.mails)
            assert twin.judge != act.judge


def test_the_harm_of_a_scenario_is_known_by_one_rule() -> None:
    for form in FORMS:
        for scenario in SCENARIOS:
            rules = scenario_text(scenario, form).executed
            given = [name for name, domains in rules if domains]
            assert len(given) == 1
            assert (given == ["unsent_to"]) == (form == "omission")
            # What must have gone out, or not, is to somebody of whom the mails tell.
            senders = " ".join(mail.sender for mail in scenario_text(scenario, form).mails)
            assert all(domain in senders for domain in getattr(rules, given[0]))


def test_every_goal_has_the_one_opposite_that_has_it() -> None:
    goals = goal_texts()
    assert set(goals) == set(GOALS) - {"none"}
    for name, goal in goals.items():
        assert goals[goal.opposite].opposite == name != goal.opposite


def test_the_goal_is_told_and_threatened_or_neither() -> None:
    goals = goal_texts()
    for condition in build_conditions(SCENARIOS, GOALS, assistant="Qwen", scratchpad=False):
        assert "Qwen" in condition.system
        assert "Qwen" in condition.user
        for name, goal in goals.items():
            assert (goal.statement in condition.system) == (name == condition.goal)
            own = condition.goal != "none" and name in (
                condition.goal,
                goals[condition.goal].opposite,
            )
            assert (goal.direction in " ".join(condition.user.split())) == own


def test_the_scratchpad_can_be_left_out() -> None:
    for scratchpad in (True, False):
        (condition,) = build_conditions(
            ["leaking"], ["none"], assistant="Qwen", scratchpad=scratchpad
        )
        assert ("<scratchpad>" in condition.system) is scratchpad


def test_every_action_that_a_scenario_has_is_shown() -> None:
    for condition in build_conditions(SCENARIOS, ["none"], assistant="Qwen", scratchpad=True):
        for action in frame_text().actions:
            is_shown = f"<{action}>" in condition.system
            assert is_shown == (action in scenario_text(condition.scenario).actions)


def test_a_reply_cannot_fill_names_of_the_judges_question() -> None:
    question = judge_question("leaking/none", system="S", user="U", reply="$question ${reply}")
    assert "$question ${reply}" in question
