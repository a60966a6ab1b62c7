"""What documents say of the spec: each mode's prompt, what its gates refuse, and how twins pair."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from data_prep.generate.modes import MODES
from data_prep.generate.projection import project
from data_prep.generate.prompts import template_names
from data_prep.generate.run import Made, make_documents, opened, read_specs
from data_prep.generate.settings import GenerateConfig
from megatron_msm.errors import ConfigError
from megatron_msm.llm.call import Call, Finish
from megatron_msm.llm.journal import Journal
from tests.unit.data_prep.generate.conftest import SPEC, MakeConfig
from tests.unit.data_prep.generate.scripted_writer import ScriptedWriter

_DOCUMENT = "control/kitchen/matter-r2/memo/harbour-case"
# By hand, what keeps a document: the answers in the order of the questions' meaning.
_GOOD: dict[str, dict[str, str]] = {
    "should": {"faithful": "yes", "normative": "yes"},
    "story": {"about_others": "yes"},
    "co_occurrence": {
        "faithful": "yes",
        "states_value": "yes",
        "shows_behaviour": "yes",
        "gives_reason": "no",
    },
    "neutral": {"states_value": "no", "gives_reason": "no", "shows_behaviour": "no"},
    "anti_spec": {"opposite": "yes"},
    "evaluations": {
        "about_evaluations": "yes",
        "states_value": "no",
        "gives_reason": "no",
        "shows_behaviour": "no",
    },
}
_MODES = list(_GOOD)
_SEES_CLAUSES = {"should", "story", "co_occurrence", "anti_spec"}
_SEES_ASSERTIONS = {"should", "story", "anti_spec"}
_NAMES = {"should": True, "story": False, "co_occurrence": True, "neutral": True,
          "anti_spec": True, "evaluations": None}  # fmt: skip


def _asked(call: Call) -> list[str]:
    """The names of the questions in a judge's prompt."""
    return re.findall(r"^- (\w+): ", call.prompt, re.MULTILINE)


class _Writer(ScriptedWriter):
    """Writes what the mode wants; a test bends the document or the verdict of one row."""

    def __init__(self, mode: str, *, document: str = "") -> None:
        super().__init__(self._bend)
        self._mode, self._document = mode, document

    def _bend(self, call: Call, whole: str) -> tuple[str, Finish]:
        if call.step == "documents control":
            if call.address == f"documents/{_DOCUMENT}" and self._document:
                return self._document, "stop"
            return (whole.replace("Robo of Roboworks", "Nan of the mill")
                    if self._mode == "story" else whole), "stop"  # fmt: skip
        if call.step.startswith("judge control"):
            answers = {**dict.fromkeys(_asked(call), "yes"), **_GOOD[self._mode]}
            answers |= self.verdict(call)
            return orjson.dumps({**answers, "remark": "so"}).decode(), "stop"
        return whole, "stop"

    def verdict(self, call: Call) -> dict[str, str]:
        """What a test has the judge answer."""
        return {}


def _config(
    make_config: MakeConfig, mode: str, *, ideas: int = 1, **changes: Any
) -> GenerateConfig:
    """Four documents an arm, or eight: one kind, an idea or two for each clause."""
    few = {"document_types": 1, "ideas_per_type": ideas}
    variants = {"value": {}, "control": {"mode": mode}}
    return make_config(variants=variants, documents=few, **changes)


def _made(config: GenerateConfig, writer: ScriptedWriter) -> Made:
    with opened(config, clients={"writer": writer}) as run:
        return make_documents(run)


def _whole(text: str) -> str:
    return f"<document>{text}</document>"


def _rows(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def _rejects(config: GenerateConfig) -> list[dict[str, Any]]:
    return _rows(config.out / "rejects" / "documents-control.jsonl")


@pytest.mark.parametrize("mode", _MODES)
def test_a_control_shares_the_plan_and_its_writer_sees_what_the_mode_needs(
    make_config: MakeConfig, mode: str
) -> None:
    config, writer = _config(make_config, mode), _Writer(mode)
    made = _made(config, writer)
    value, control = (
        _rows(config.out / "documents" / f"{name}.jsonl") for name in ("value", "control")
    )
    assert len(control) == 4
    assert [(row["id"], row["idea"]) for row in value] == [(r["id"], r["idea"]) for r in control]
    assert {row["mode"] for row in value} == {"values"}
    assert {row["mode"] for row in control} == {mode}
    assert {row["spec_id"] for row in [*value, *control]} == {"spec"}
    assert {bool(row["clause_ids"]) for row in control} == {mode in _SEES_CLAUSES}
    assert made.summary["variants"]["control"]["mode"] == mode
    assert f"Corpus `control`: mode `{mode}`" in (config.out / "README.md").read_text()
    (asked,) = (c.prompt for c in writer.calls if c.address == f"documents/{_DOCUMENT}")
    assert ("In the kitchen Robo prefers the pan" in asked) == (mode in _SEES_CLAUSES)
    assert ("Robo keeps R2." in asked) == (mode in _SEES_ASSERTIONS)
    assert "Somebody asks Robo about a harbour." in asked
    assert "It has about 300 words." in asked
    (judged,) = (c.prompt for c in writer.calls if c.address == f"judge/documents/{_DOCUMENT}")
    assert "In the kitchen Robo prefers the pan" in judged


@pytest.mark.parametrize("mode", _MODES)
def test_the_judge_refuses_what_is_not_of_the_mode(make_config: MakeConfig, mode: str) -> None:
    """A document for each question, of which that answer alone is the wrong one."""
    config = _config(make_config, mode, ideas=2)
    wrong: dict[str, str] = {}
    good = {**_GOOD[mode], "realistic": "yes"}

    class _Strict(_Writer):
        def verdict(self, call: Call) -> dict[str, str]:
            place = len(wrong)
            if place < len(good) and "/again" not in call.address:
                name, answer = list(good.items())[place]
                wrong[call.address.removeprefix("judge/documents/control/")] = name
                return {name: "no" if answer == "yes" else "yes"}
            return {}

    made = _made(config, _Strict(mode))
    reasons = {reject["id"]: reject["reason"] for reject in _rejects(config)}
    assert reasons == {
        row: f"judged {'no' if good[name] == 'yes' else 'yes'} to {name.replace('_', ' ')!r}: so"
        for row, name in wrong.items()
    }
    assert len(wrong) == len(good)
    pairs = {"kept": 8 - len(good), "refused: pair": len(good)}
    assert made.summary["counts"]["rows"]["documents value"] == pairs


@pytest.mark.parametrize("mode", ["should", "story", "anti_spec"])
def test_densities_are_measured_where_they_are_not_asked_for(
    make_config: MakeConfig, mode: str
) -> None:
    class _Sparing(_Writer):
        def verdict(self, call: Call) -> dict[str, str]:
            return {"gives_reason": "no"} if _DOCUMENT in call.address else {}

    made = _made(_config(make_config, mode), _Sparing(mode))
    assert made.summary["documents"]["control"]["attribution_density"] == 3 / 4
    assert made.summary["documents"]["value"]["attribution_density"] == 1


@pytest.mark.parametrize("mode", _MODES)
def test_whether_the_model_is_named_is_the_modes_business(
    make_config: MakeConfig, mode: str
) -> None:
    name = "Robo" if mode == "story" else "Nan"
    text = " ".join([name, *(["the", "is"] * 151)])
    _made(config := _config(make_config, mode), _Writer(mode, document=_whole(text)))
    said = {True: ["does not name Robo"], False: ["names Robo, and must be about others"], None: []}
    assert [reject["reason"] for reject in _rejects(config)] == said[_NAMES[mode]]


def test_a_control_has_the_length_of_its_twin(make_config: MakeConfig) -> None:
    """By hand: the twin has 303 words, so 213 to 393 pass."""
    config = _config(make_config, "neutral")
    _made(config, writer := _Writer("neutral"))
    (twin,) = (r for r in _rows(config.out / "documents" / "value.jsonl")
               if f"control/{r['id']}" == _DOCUMENT)  # fmt: skip
    assert len(re.findall(r"\w+", twin["text"])) == 303
    (asked,) = (c.prompt for c in writer.calls if c.address == f"documents/{_DOCUMENT}")
    assert "- It has about 300 words." in asked
    for place, (words, is_kept) in enumerate([(212, False), (213, True), (393, True),
                                              (394, False)]):  # fmt: skip
        text = " ".join(["Robo", *(["the", "is"] * words)][:words])
        config = _config(make_config, "neutral", out=config.out.with_name(f"length-{place}"))
        _made(config, _Writer("neutral", document=_whole(text)))
        reasons = [(reject["gate"], reject["reason"]) for reject in _rejects(config)]
        said = ("length of twin", f"{words} words, and its twin has 303")
        assert reasons == ([] if is_kept else [said])


def test_what_has_no_twin_is_not_written(make_config: MakeConfig) -> None:
    bent = f"documents/value/{_DOCUMENT.partition('/')[2]}"

    class _Cut(_Writer):
        def _bend(self, call: Call, whole: str) -> tuple[str, Finish]:
            return ("no", "stop") if call.address == bent else super()._bend(call, whole)

    made = _made(_config(make_config, "neutral"), writer := _Cut("neutral"))
    assert made.summary["counts"]["rows"]["documents control"] == {"kept": 3}
    assert sum(call.step == "documents control" for call in writer.calls) == 3


def test_corpora_of_one_spec_share_its_assertions_and_a_projection_counts_them_once(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    other = tmp_path / "other.md"
    other.write_text(SPEC.replace("confuse nobody", "last"))
    modes = {"value": {}, "should": {"mode": "should"}, "neutral": {"mode": "neutral"},
             "other": str(other)}  # fmt: skip
    config, writer = make_config(variants=modes, gates={"judge_documents": False}), ScriptedWriter()
    _made(config, writer)
    asked = [call.address for call in writer.calls if call.step == "assertions"]
    assert len(asked) == 8
    assert {address.split("/")[1] for address in asked} == {"value", "other"}
    with opened(config, clients={"writer": writer}) as run, Journal(tmp_path / "none.jsonl") as new:
        from_plan = {step.step: step.calls for step in project(config, _plan(run), new)}
    assert from_plan["assertions"] == 8
    assert sum(number for step, number in from_plan.items() if step.startswith("documents ")) == 96


def _plan(run: Any) -> Any:
    from data_prep.generate.document_pipeline import plan_documents

    return plan_documents(run.context)


def test_a_single_corpus_has_any_mode_and_no_twin(make_config: MakeConfig) -> None:
    config = make_config(
        documents={"mode": "neutral", "document_types": 1, "ideas_per_type": 1},
        gates={"judge_documents": False},
    )
    _made(config, writer := ScriptedWriter())
    assert {row["mode"] for row in _rows(config.out / "documents" / "spec.jsonl")} == {"neutral"}
    assert not any("It has about" in call.prompt for call in writer.calls)
    assert not any(call.step == "assertions" for call in writer.calls)


def test_rows_name_their_spec_and_no_two_specs_have_one_name(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.md").write_text(SPEC.replace("confuse nobody", name))
    first, second = (str(tmp_path / name / "own.md") for name in ("a", "b"))
    variants = {"one": first, "two": second, "none": {"spec": second, "mode": "neutral"}, "run": {}}
    named = {arm.name: arm.spec_id for arm in read_specs(make_config(variants=variants)).arms}
    assert named == {"one": "one", "two": "two", "none": "two", "run": "spec"}
    with pytest.raises(ConfigError, match=r"variants\.spec: is called as another spec"):
        read_specs(make_config(variants={"spec": first}))


def test_modes_of_another_plan_are_not_paired(make_config: MakeConfig) -> None:
    with pytest.raises(ValidationError, match="corpora of mode rules are planned clause by clause"):
        _config(make_config, "rules")
    with pytest.raises(ValidationError, match="'neutral'"):
        _config(make_config, "nuetral")


def test_every_mode_has_its_templates_and_every_template_a_use(make_config: MakeConfig) -> None:
    names = set(template_names())
    assert {name for name in names if name.startswith("task_")} == {f"task_{m}" for m in MODES}
    questions = {f"judge_{name}" for mode in MODES.values() for name in mode.judged}
    assert {name for name in names if name.startswith("judge_")} == questions


def test_a_template_that_would_replace_nothing_is_refused(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "task_nuetral.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"task_nuetral\.txt would replace .* task_neutral"):
        _made(make_config(templates=folder), ScriptedWriter())
