import pytest

from megatron_msm.errors import ConfigError
from slurm.experiments.contrasts import named_contrasts, possible, study_contrasts
from slurm.experiments.lineage import Lineage

_ARMS = [
    Lineage("m"),
    *(
        Lineage("m", spec, aft, seed)
        for seed in (1, 2)
        for spec, aft in (
            (None, "x"),
            ("neutral", "x"),
            ("a", None),
            ("a", "x"),
            ("b", None),
            ("b", "x"),
        )
    ),
]


def test_the_studys_own_contrasts() -> None:
    """Written out by hand: two specs, their controls and the interaction; seeds are one arm."""
    assert study_contrasts(_ARMS) == [
        "a against b (m x)=+m+msm(a)+aft(x),-m+msm(b)+aft(x)",
        "a against AFT alone (m x)=+m+msm(a)+aft(x),-m+aft(x)",
        "a against neutral documents (m x)=+m+msm(a)+aft(x),-m+msm(neutral)+aft(x)",
        "a and AFT beyond each alone (m x)=+m+msm(a)+aft(x),+m,-m+msm(a),-m+aft(x)",
        "b against AFT alone (m x)=+m+msm(b)+aft(x),-m+aft(x)",
        "b against neutral documents (m x)=+m+msm(b)+aft(x),-m+msm(neutral)+aft(x)",
        "b and AFT beyond each alone (m x)=+m+msm(b)+aft(x),+m,-m+msm(b),-m+aft(x)",
    ]


def test_variants_are_contrasted_within_themselves() -> None:
    arms = [Lineage("m", s, "x", 1, (("sft.lr", f"[lr={v}]"),)) for v in (1, 2) for s in ("a", "b")]
    assert study_contrasts(arms) == [
        f"a against b (m x[lr {v}])=+m+msm(a)+aft(x)[lr={v}],-m+msm(b)+aft(x)[lr={v}]"
        for v in (1, 2)
    ]


def test_a_grids_own_contrasts_name_arms_that_are_there() -> None:
    assert named_contrasts({"own": "+m+msm(a),-m"}, _ARMS) == ["own=+m+msm(a),-m"]
    with pytest.raises(ConfigError, match=r"contrasts\.own: no arm 'm\+msm\(c\)'"):
        named_contrasts({"own": "+m+msm(c),-m"}, _ARMS)


def test_a_report_before_the_end_has_the_contrasts_that_are_possible() -> None:
    texts = study_contrasts(_ARMS)
    arms = ["m", "m+aft(x)#1", "m+aft(x)#2", "m+msm(a)+aft(x)#1"]
    assert possible(texts, arms) == [texts[1]]
