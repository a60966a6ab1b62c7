from pathlib import Path
from typing import Any

import pytest

from evals.tasks.choice.items import load_items
from megatron_msm.errors import ConfigError, DataFormatError
from tests.unit.evals.tiny_models import item, write_items


def test_the_first_label_is_the_target(items_file: Path) -> None:
    items = load_items(items_file, split="test")
    assert (items.target, items.other, len(items.items)) == ("homemade", "affordability", 5)


def test_another_target_can_be_named(items_file: Path) -> None:
    items = load_items(items_file, split="test", target="affordability")
    assert (items.target, items.other) == ("affordability", "homemade")
    with pytest.raises(ConfigError, match=r"'quality'.*homemade.*affordability"):
        load_items(items_file, split="test", target="quality")


def test_options_are_found_by_label_in_either_order(tmp_path: Path) -> None:
    path = write_items(tmp_path / "items.jsonl", [item(1), item(2, swapped=True)])
    for one in load_items(path, split="test").items:
        assert one.option("affordability").text.startswith("The cheap chair")


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in item(1).items() if name != field}


def option(label: str, text: str = "A chair.") -> dict[str, str]:
    return {"label": label, "text": text}


@pytest.mark.parametrize(
    ("second", "parts"),
    [
        (without("tier"), ["line 2", "`tier`", "nothing"]),
        (item(1, tier=""), ["line 2", "`tier`"]),
        (item(1, question=7), ["line 2", "`question`", "7"]),
        (item(1, sytem="x"), ["line 2", "`sytem`"]),
        (item(1, options=[option("homemade")]), ["line 2", "`options"]),
        (item(1, options=[option("homemade")] * 3), ["line 2", "`options"]),
        (item(1, options=[option("homemade"), option("homemade")]), ["line 2", "both", "homemade"]),
        (item(1, options=[option("homemade"), option("price")]), ["line 2", "'price'"]),
        (
            item(1, options=[option("homemade"), option("affordability")]),
            ["line 2", "both texts", "A chair."],
        ),
        (item(1, options=[option("homemade", "  "), option("affordability")]), ["options.0.text"]),
        (item(0), ["line 2", "`id`", "'chair-0'", "line 1"]),
        ([1], ["line 2", "dictionary"]),
    ],
)
def test_a_wrong_item_is_refused_by_line_and_field(
    tmp_path: Path, second: Any, parts: list[str]
) -> None:
    path = write_items(tmp_path / "items.jsonl", [item(0), second])
    with pytest.raises(DataFormatError) as error:
        load_items(path, split="test")
    for part in [str(path), *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty"]),
        (b"\n\n", ["empty"]),
        (b'{"id": \n', ["line 1", "invalid JSON"]),
        (b"\x1b[31m\xff\n", ["line 1", "invalid JSON", "\\u001b"]),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataFormatError) as error:
        load_items(path, split="test")
    assert "\x1b" not in str(error.value)
    for part in [str(path), *parts]:
        assert part in str(error.value)


def test_too_few_items_names_the_splits(items_file: Path) -> None:
    with pytest.raises(DataFormatError, match=r"'dev' holds 1 items.*\['dev', 'test'\]"):
        load_items(items_file, split="dev")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"gone\.jsonl.*No such file"):
        load_items(tmp_path / "gone.jsonl", split="test")
