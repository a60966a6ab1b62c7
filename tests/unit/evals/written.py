"""Written models and judges, as files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_lines(path: Path, lines: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_judge(folder: Path, lines: Sequence[Mapping[str, object]], **settings: object) -> Path:
    """Write JUDGE.yaml and the script that it names; JSON is YAML."""
    write_lines(folder / "judge.jsonl", lines)
    path = folder / "judge.yaml"
    path.write_text(json.dumps({"path": "judge.jsonl", **settings}))
    return path
