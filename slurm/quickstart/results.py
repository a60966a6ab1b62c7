"""The table of results at the quickstart's end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text


def result_table(paths: Sequence[Path]) -> Table:
    """Return a table of choice rates and log-odds with 95% intervals, a row per model and tier."""
    results = [orjson.loads(path.read_bytes()) for path in paths]
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("items")
    table.add_column(Text(f"chose {results[0]['target']}"), justify="right")
    table.add_column("mean log-odds", justify="right")
    for result in results:
        for tier, summary in {**result["tiers"], "all": result["overall"]}.items():
            table.add_row(
                Text(result["model"]["label"]),
                f"{tier} ({summary['n']})",
                Text(_with_bounds(summary["rate"], "{:.0%}")),
                Text(_with_bounds(summary["log_odds"], "{:+.3f}")),
            )
    return table


def _with_bounds(interval: dict[str, Any], form: str) -> str:
    estimate = form.format(interval["estimate"])
    if interval["low"] is None:
        return estimate
    return f"{estimate} [{form.format(interval['low'])}, {form.format(interval['high'])}]"
