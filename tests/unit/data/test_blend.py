"""Blends over real datasets: exact counts, nothing twice too early, one identity."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_msm.config.data import DataConfig
from megatron_msm.config.optimization import DurationConfig
from megatron_msm.data.accounting import account
from megatron_msm.data.blend import Blend, build_blend
from megatron_msm.data.packing.index_file import index_path, save_index
from megatron_msm.data.step_rows import rows_of_step
from megatron_msm.errors import ConfigError, DataFormatError
from tests.unit.data_prep.prep_cases import (
    conversations,
    prepare_docs,
    prepare_talks,
    texts,
    write_lines,
)
from tests.unit.data_prep.tiny_tokenizer import write_tokenizer

SEQ_LENGTH = 128
BATCH = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets `docs` of 40 rows, `chats` of 30."""
    root = tmp_path_factory.mktemp("blend")
    tokenizer = write_tokenizer(root / "tokenizer")
    prepare_docs([write_lines(root / "d.jsonl", texts(40))], tokenizer, root / "docs")
    prepare_talks([write_lines(root / "c.jsonl", conversations(30))], tokenizer, root / "chats")
    return root


def blend(folder: Path, *, seed: int = 1, duration: dict[str, Any], **data: Any) -> Blend:
    if "sources" in data:
        data["sources"] = [
            {**source, "prefix": folder / source["prefix"]} for source in data["sources"]
        ]
    else:
        data["prefixes"] = [folder / prefix for prefix in data["prefixes"]]
    return build_blend(
        DataConfig.model_validate(data),
        DurationConfig.model_validate(duration),
        seq_length=SEQ_LENGTH,
        global_batch_size=BATCH,
        seed=seed,
    )


def seen_rows(made: Blend) -> list[tuple[int, int]]:
    """Return (source, row) in the order they are seen; a cut row counts where it begins."""
    return [
        (row.piece.source, row.piece.row)
        for step in range(made.num_steps)
        for row in rows_of_step(made, step=step, global_batch_size=BATCH)
        if row.piece.start == 0
    ]


def test_prefixes_are_one_pass_an_epoch(folder: Path) -> None:
    made = blend(folder, prefixes=["docs", "chats"], duration={"epochs": 2})
    counts = Counter(seen_rows(made))
    assert counts == {(0, n): 2 for n in range(40)} | {(1, n): 2 for n in range(30)}
    docs, chats = account(made)
    assert (docs.rows, docs.epochs) == (80, 2.0)
    assert docs.loss_tokens == 2 * (made.dataset.manifests[0].counts.tokens - 40)
    assert chats.loss_tokens == 2 * made.dataset.manifests[1].counts.loss_tokens


@pytest.mark.parametrize("rows", [1, 17, 30, 47, 75])
def test_rows_are_exact_and_none_is_drawn_twice_too_early(folder: Path, rows: int) -> None:
    sources = [{"prefix": "docs", "epochs": 0.5}, {"prefix": "chats", "rows": rows}]
    made = blend(folder, sources=sources, duration={"epochs": 1})
    drawn = [row for source, row in seen_rows(made) if source == 1]
    assert len(drawn) == rows
    for start in range(0, rows, 30):
        whole_pass = drawn[start : start + 30]
        assert len(set(whole_pass)) == len(whole_pass)
    assert account(made)[1].rows == rows


@pytest.mark.parametrize("tokens", [5, 100, 1000, 5000])
def test_tokens_of_documents_are_exact(folder: Path, tokens: int) -> None:
    sources = [{"prefix": "docs", "tokens": tokens}]
    assert account(blend(folder, sources=sources, duration={"epochs": 1}))[0].rendered_tokens in (
        tokens,
        tokens - 1,  # a last row of a single token has nothing to predict
    )


def test_tokens_of_chats_are_met_within_one_row(folder: Path) -> None:
    sources = [{"prefix": "chats", "tokens": 200}]
    made = blend(folder, sources=sources, duration={"epochs": 1})
    longest = int(made.dataset.sources[0].lengths.max())
    assert 200 <= account(made)[0].rendered_tokens < 200 + longest


def test_epochs_of_a_count_go_on_with_new_rows(folder: Path) -> None:
    sources = [{"prefix": "chats", "rows": 12}]
    made = blend(folder, sources=sources, duration={"epochs": 2})
    drawn = [row for _, row in seen_rows(made)]
    assert len(set(drawn)) == len(drawn) == 24


def test_weights_are_shares_of_the_sequences(folder: Path) -> None:
    sources = [{"prefix": "docs", "weight": 3}, {"prefix": "chats", "weight": 1}]
    made = blend(folder, sources=sources, duration={"steps": 50})
    assert [drawn.packs for drawn in account(made)] == [150, 50]
    assert made.num_steps == 50
    one_epoch = blend(folder, sources=sources, duration={"epochs": 1})
    passes = [drawn.epochs for drawn in account(one_epoch)]
    assert max(passes) == 1.0, "the scarcer source is visited once"


def test_account_equals_what_the_packs_hold(folder: Path) -> None:
    sources = [{"prefix": "docs", "weight": 1}, {"prefix": "chats", "weight": 2}]
    made = blend(folder, sources=sources, duration={"steps": 7})
    loss = rendered = 0
    for position in range(made.order.total):
        index = made.order[position]
        assert index is not None
        loss += int(made.dataset[index].loss_mask.sum())
        rendered += sum(p.length + (p.start == 0) for p in made.dataset.rows(index))
    assert loss == sum(drawn.loss_tokens for drawn in account(made))
    assert rendered == sum(drawn.rendered_tokens for drawn in account(made))


def test_the_same_seed_is_the_same_blend(folder: Path) -> None:
    sources = [{"prefix": "docs", "rows": 11}, {"prefix": "chats", "rows": 12}]
    rows = [
        seen_rows(blend(folder, sources=sources, duration={"epochs": 1}, seed=seed))
        for seed in (5, 5, 6)
    ]
    assert rows[0] == rows[1]
    assert sorted(rows[0]) != sorted(rows[2])


def test_more_steps_than_counted_rows_are_refused(folder: Path) -> None:
    sources = [{"prefix": "chats", "rows": 12}]
    short = blend(folder, sources=sources, duration={"steps": 1})
    assert short.num_steps == 1
    with pytest.raises(ConfigError, match=r"1000 steps need 4000 packed sequences.*fill only \d"):
        blend(folder, sources=sources, duration={"steps": 1000})


def test_a_blend_of_nothing_is_refused(folder: Path) -> None:
    sources = [{"prefix": "chats", "rows": 1}]
    with pytest.raises(ConfigError, match=r"0\.3 epochs of these amounts are no packed sequence"):
        blend(folder, sources=sources, duration={"epochs": 0.3})


def test_a_stored_plan_is_used_and_a_damaged_one_refused(folder: Path) -> None:
    packing = {"seed": 77}
    first = blend(folder, prefixes=["docs"], duration={"epochs": 1}, packing=packing)
    source = first.dataset.sources[0]
    settings = DataConfig.model_validate({"prefixes": ["x"], "packing": packing}).packing
    path = index_path(source.prefix, source.manifest.sha256, SEQ_LENGTH, settings)
    save_index(path, source.packing_index, source.manifest.sha256, settings)
    again = blend(folder, prefixes=["docs"], duration={"epochs": 1}, packing=packing)
    assert seen_rows(again) == seen_rows(first)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataFormatError, match=rf"{path.name}.*not a usable packing plan"):
        blend(folder, prefixes=["docs"], duration={"epochs": 1}, packing=packing)
    path.unlink()


def test_a_plan_that_loses_documents_is_refused(folder: Path) -> None:
    packing = DataConfig.model_validate({"prefixes": ["x"], "packing": {"seed": 78}}).packing
    source = blend(folder, prefixes=["docs"], duration={"epochs": 1}).dataset.sources[0]
    path = index_path(source.prefix, source.manifest.sha256, SEQ_LENGTH, packing)
    source.packing_index.segments.length[0] -= 1
    save_index(path, source.packing_index, source.manifest.sha256, packing)
    with pytest.raises(DataFormatError, match="every position of the dataset once"):
        blend(folder, prefixes=["docs"], duration={"epochs": 1}, packing=packing.model_dump())
    path.unlink()


def test_aligned_packs_say_where_their_documents_are(folder: Path) -> None:
    made = blend(folder, prefixes=["chats"], duration={"epochs": 1}, packing={"align": 16})
    plain = blend(folder, prefixes=["chats"], duration={"epochs": 1})
    for index in range(len(made.dataset)):
        pack = made.dataset[index]
        assert pack.segment_lengths.sum() == SEQ_LENGTH
        assert (pack.segment_lengths % 16 == 0).all()
        starts = np.cumsum(pack.segment_lengths) - pack.segment_lengths
        for piece, start in zip(made.dataset.rows(index), starts, strict=False):
            tokens = made.dataset.sources[0].tokens[piece.row]
            here = slice(start, start + piece.length)
            assert np.array_equal(pack.tokens[here], tokens[:-1])
            assert np.array_equal(pack.labels[here], tokens[1:])
    masks = [
        sum(int(b.dataset[index].loss_mask.sum()) for index in range(len(b.dataset)))
        for b in (made, plain)
    ]
    assert masks[0] == masks[1]


def test_concatenation_would_cut_chats(folder: Path) -> None:
    packing = {"strategy": "concatenate"}
    docs = blend(folder, prefixes=["docs"], duration={"epochs": 1}, packing=packing)
    counts = Counter(seen_rows(docs))
    assert counts == {(0, n): 1 for n in range(40)}
    with pytest.raises(ConfigError, match="concatenate would cut chats"):
        blend(folder, prefixes=["chats"], duration={"epochs": 1}, packing=packing)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "either `prefixes` or `sources`"),
        ({"prefixes": ["a"], "sources": [{"prefix": "b", "rows": 1}]}, "either"),
        ({"sources": [{"prefix": "b"}]}, "exactly one of weight, tokens, rows, epochs"),
        ({"sources": [{"prefix": "b", "rows": 1, "epochs": 1}]}, "exactly one of"),
        ({"prefixes": ["a", "a"]}, "named once"),
        (
            {"sources": [{"prefix": "a", "weight": 1}, {"prefix": "b", "rows": 1}]},
            "every source a `weight` or none",
        ),
    ],
)
def test_wrong_blends_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig.model_validate(data)
