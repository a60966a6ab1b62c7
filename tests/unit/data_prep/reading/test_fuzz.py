"""A hundred thousand mutated lines: what a second, slower reader accepts is in the dataset.

The second reader is written from the documented rules on Python's own `json`.
"""

import json
import math
import random
from pathlib import Path
from typing import Any

import orjson

from data_prep.inspecting.check import check_dataset
from megatron_msm.formats.provenance import read_provenance
from megatron_msm.formats.rejects import read_rejects
from tests.unit.data_prep.prep_cases import prepare_docs, texts

NUM_LINES = 100_000
SPLICES = (
    *(b'"', b"\\", b"{", b"}", b"[", b",", b":", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b" "),
    *(b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b'"text":', b'"text": "x", ', b"1e999"),
    *(b"null", b'"role": 1, '),
    *(
        b"\r",
        b"\xef\xbb\xbf",
        b"NaN",
        b"-0",
        b"\xf0\x9f\x98\x80",
        b'"id": 3, ',
        b'"role": 1, ',
        b"//",
    ),
)


def mutated_lines() -> list[bytes]:
    generator = random.Random(0)
    good = [orjson.dumps(line | {"role": "train"}) for line in texts(50)]
    lines = []
    for _ in range(NUM_LINES):
        raw = generator.choice(good)
        for _ in range(generator.choice((0, 1, 1, 2, 3))):
            offset = generator.randrange(len(raw) + 1)
            cut = generator.choice((0, 0, 1, 2, 30))
            raw = raw[:offset] + generator.choice(SPLICES) + raw[offset + cut :]
        if generator.random() < 0.01:
            raw = raw[: generator.randrange(len(raw))]
        lines.append(raw)
    return lines


def is_document(raw: bytes) -> bool:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(number)
        return float(number)

    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=unique, parse_constant=finite, parse_float=finite
        )
        value["text"].encode()
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    carried = [value.get(name) for name in ("domain", "role")]
    return (
        isinstance(value["text"], str)
        and bool(value["text"].strip())
        and "\0" not in value["text"]
        and all(field is None or isinstance(field, str) for field in carried)
        and (value.get("id") is None or type(value["id"]) in (str, int))
    )


def test_a_hundred_thousand_mutated_lines(tmp_path: Path, chatml_folder: Path) -> None:
    lines = mutated_lines()
    source = tmp_path / "d.jsonl"
    source.write_bytes(b"\n".join(lines) + b"\n")
    made = prepare_docs([source], chatml_folder, tmp_path / "a", max_rejects=NUM_LINES)
    counts = made.manifest.counts
    assert counts.lines == NUM_LINES == counts.kept + counts.rejected + counts.blank
    assert min(counts.kept, counts.rejected) > NUM_LINES // 10
    rows = [row.source_line for row in read_provenance(Path(f"{tmp_path / 'a'}.meta.parquet"))]
    rejects = list(read_rejects(Path(f"{tmp_path / 'a'}.rejects.jsonl")))
    assert sorted([*rows, *(reject.line for reject in rejects)]) == [
        number for number, line in enumerate(lines, start=1) if line.strip()
    ]
    wanted = [number for number, line in enumerate(lines, start=1) if is_document(line)]
    differing = sorted(set(rows) ^ set(wanted))
    assert not differing, [(number, lines[number - 1]) for number in differing[:5]]
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)
    assert all(reject.byte_offset == offsets[reject.line - 1] for reject in rejects)
    assert all(finding.is_ok for finding in check_dataset(tmp_path / "a"))
