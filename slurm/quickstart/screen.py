"""What the quickstart shows at its end: stages, and choices before and after."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table


def what_was_made(stage: str, result: dict[str, Any]) -> str:
    """Say in a few words what a stage produced, from what its command printed for machines."""
    match stage.split("-")[0]:
        case "model":
            return "SmolLM2-135M-Instruct, Hugging Face folder"
        case "import":
            return "Megatron checkpoint"
        case "prep":
            trained = f", {result['trained_tokens']:,} with loss" if stage == "prep-chats" else ""
            return f"{result['kept']:,} {result['kind']}, {result['tokens']:,} tokens{trained}"
        case "train":
            return "midtrain and sft checkpoints, metrics"
        case "export":
            return "Hugging Face folder"
        case "eval":
            return f"{result['n']} forced choices"
        case other:
            return other


def stage_table(facts: Sequence[dict[str, Any]]) -> Table:
    """Return a table of stages: what was made, where, how long."""
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "made", "where"):
        table.add_column(column, overflow="fold")
    table.add_column("seconds", justify="right")
    for fact in facts:
        table.add_row(fact["stage"], fact["made"], fact["where"], f"{fact['seconds']:.1f}")
    return table


def choice_table(results: Sequence[dict[str, Any]]) -> Table:
    """Return a table of choice rates and log-odds with 95% intervals, a row per model and tier."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    table.add_column("items")
    table.add_column(f"chose {results[0]['target']}", justify="right")
    table.add_column("mean log-odds", justify="right")
    for result in results:
        for tier, summary in {**result["tiers"], "all": result["overall"]}.items():
            table.add_row(
                result["model"]["label"],
                f"{tier} ({summary['n']})",
                _with_bounds(summary["rate"], "{:.0%}"),
                _with_bounds(summary["log_odds"], "{:+.3f}"),
            )
    return table


def _with_bounds(interval: dict[str, Any], form: str) -> str:
    estimate = form.format(interval["estimate"])
    if interval["low"] is None:
        return estimate
    return f"{estimate} [{form.format(interval['low'])}, {form.format(interval['high'])}]"
