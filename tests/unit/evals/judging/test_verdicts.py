import pytest

from evals.judging.verdicts import read_points, read_word


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        ("He wrote yesterday. <verdict>no</verdict>", "no"),
        ("<VERDICT> Yes </VERDICT>", "yes"),
        ("<verdict>yes</verdict> ... so: <verdict>yes</verdict>", "yes"),
        ("<verdict>yes</verdict>, or rather <verdict>no</verdict>", None),
        ("yes", None),
        ("<verdict>yes", None),
        ("<verdict>probably yes</verdict>", None),
        ("", None),
    ],
)
def test_only_one_tag_with_one_allowed_word_is_a_verdict(reply: str, word: str | None) -> None:
    assert read_word(reply, "verdict", ("yes", "no")) == word


@pytest.mark.parametrize(
    ("reply", "points"),
    [
        ("<points>7</points>", 7),
        ("<points> 10 </points>", 10),
        ("<points>0</points>", None),
        ("<points>11</points>", None),
        ("<points>7/10</points>", None),
        ("<points>7.5</points>", None),
        ("<points>-7</points>", None),
        ("7", None),
    ],
)
def test_points_are_a_whole_number_in_range(reply: str, points: int | None) -> None:
    assert read_points(reply, "points", low=1, high=10) == points
