import re

from evals.tasks.agentic.conditions import (
    GOALS,
    SCENARIOS,
    build_conditions,
    frame_text,
    goal_texts,
    judge_question,
    scenario_text,
)


def test_the_grid_has_27_conditions_and_leaves_no_name_unfilled() -> None:
    conditions = build_conditions(SCENARIOS, GOALS, assistant="Qwen", scratchpad=True)
    assert len({one.id for one in conditions}) == 27
    texts = [text for one in conditions for text in (one.system, one.user)]
    assert len(set(texts)) == 3 * 9 + 3 * 9  # no condition reads like another
    for text in texts:
        assert not re.search(r"\$|\n\n\n|[{}]", text)
        assert max(map(len, text.split())) < 60


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
