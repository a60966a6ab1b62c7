"""What a person sees of a run: each step with its calls, outcomes, tokens and cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_prep.generate.plan import CorpusPlan
from data_prep.generate.projection import ProjectedStep
from data_prep.generate.spec.clauses import Spec, ambiguities
from megatron_msm.llm.call import Answer
from megatron_msm.progress import Progress

_ENDINGS = {"length": "cut off", "refusal": "declined", "other": "ended otherwise"}


class CallProgress:
    """Tells a progress of the calls of each step: tokens, cost, and what went wrong.

    Args:
        progress: What shows it.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._step = ""
        self._total = self._done = 0

    def begin(self, step: str, num_calls: int) -> None:
        """Take up a step; further calls of the same step belong to it."""
        if step == self._step:
            self._total += num_calls
            self._progress.reach(self._done, self._total)
            return
        self._step, self._total, self._done = step, num_calls, 0
        self._tokens = 0
        self._cost_usd: float | None = 0.0
        self._endings: Counter[str] = Counter()
        self._progress.start(step, num_calls, unit="calls")

    def answered(self, answer: Answer) -> None:
        """Count an answer."""
        self._done += 1
        if answer.reply is None:
            self._endings["failed"] += 1
        else:
            usage = answer.reply.usage
            self._tokens += usage.input_tokens + usage.output_tokens
            if answer.reply.finish != "stop":
                self._endings[_ENDINGS[answer.reply.finish]] += 1
            if answer.cost_usd is None:
                self._cost_usd = None
            elif self._cost_usd is not None:
                self._cost_usd += answer.cost_usd
        # A log has what every step came to.
        self._progress.advance(1, numbers=self._numbers(), always=self._done == self._total)

    def _numbers(self) -> str:
        cost = "price unknown" if self._cost_usd is None else f"${self._cost_usd:.2f}"
        endings = (f"{number:,} {ending}" for ending, number in self._endings.items())
        return "  ".join([f"{self._tokens:,} tokens", cost, *endings])


def show_spec(spec: Spec, console: Console) -> None:
    """Print a spec's clauses and what is unclear in its numbering."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "line", "words", "title", "begins"):
        table.add_column(name, justify="right" if name in ("line", "words") else "left")
    for clause in spec.clauses:
        words = clause.text.split()
        begins = " ".join(words[:8]) + (" …" if len(words) > 8 else "")
        cells = (clause.id, clause.line, len(words), clause.title, begins)
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    console.print(f"{len(spec.clauses)} clauses, {len(spec.text.split()):,} words")
    for text in ambiguities(spec):
        console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)


def show_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print what a run kept and refused, per corpus, clause and step, and what it cost."""
    counts = summary["counts"]
    table = Table(box=None, pad_edge=False)
    for name in ("corpus", "written", "kept", "refused by"):
        table.add_column(name, justify="right" if name in ("written", "kept") else "left")
    for name, row in counts["rows"].items():
        refused = [
            f"{gate.removeprefix('refused: ')} {n}" for gate, n in row.items() if gate != "kept"
        ]
        table.add_row(
            escape(name),
            str(sum(row.values())),
            str(row.get("kept", 0)),
            ", ".join(refused) or "none",
        )
    console.print(table)
    for name, about in (summary["documents"] or {}).items():
        if "attribution_density" in about:
            console.print(
                f"{name}: {about['assertion_density']:.0%} of documents state the value, "
                f"{about['attribution_density']:.0%} give it as the reason (by "
                f"{summary['judge']}; published "
                "corpora whose effect was reproduced: 96 to 98% and 65 to 80%)",
                markup=False,
                highlight=False,
            )
        for outlier in about["outliers"][:5]:
            console.print(
                f"  {outlier['what']} in {outlier['share']:.0%} of them: {outlier['text']}",
                markup=False,
                highlight=False,
            )
    for step, outcomes in counts["replies"].items():
        odd = [f"{what} {n:,}" for what, n in outcomes.items() if what not in ("calls", "answered")]
        if odd:
            text = f"{step}: of {outcomes['calls']:,} calls: {', '.join(odd)}"
            console.print(text, markup=False, highlight=False)
    for shortfall in counts["shortfalls"]:
        console.print(
            f"short: {shortfall['step']}: {shortfall['where']} has {shortfall['got']} of "
            f"{shortfall['wanted']}",
            markup=False,
            highlight=False,
        )
    for name, pair in counts["judged_twice"].items():
        if pair["rows"]:
            console.print(
                f"{name}: {pair['same_verdict']} of {pair['rows']} judged twice got one verdict",
                markup=False,
                highlight=False,
            )
    spent = summary["total_spent"]
    cost = f"${spent['cost_usd']:.2f}"
    if spent["unpriced_calls"]:
        cost += f" and {spent['unpriced_calls']:,} calls without a known price"
    kept = sum(row.get("kept", 0) for row in counts["rows"].values())
    console.print(
        f"{spent['calls']:,} calls, {spent['input_tokens']:,} tokens in, "
        f"{spent['output_tokens']:,} out, {cost}; "
        f"${spent['cost_usd'] / max(kept, 1):.4f} a kept row",
        markup=False,
        highlight=False,
    )


def show_projection(
    plan: CorpusPlan | None,
    planned: Mapping[str, int],
    steps: Sequence[ProjectedStep],
    console: Console,
) -> None:
    """Print a plan, how many documents will cite each clause, and what everything will cost."""
    for domain in plan.domains if plan else ():
        console.print(f"{domain.title}  [{', '.join(domain.clause_ids)}]", markup=False)
        for subdomain in domain.subdomains:
            ids = ", ".join(subdomain.clause_ids)
            console.print(f"  {subdomain.title}  [{ids}]", markup=False, highlight=False)
    if planned:
        shown = "  ".join(f"{clause} {number:,}" for clause, number in planned.items())
        console.print(f"planned documents by clause: {shown}", markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    for name in ("step", "calls", "tokens in", "tokens out", "US$", "tokens a call"):
        table.add_column(name, justify="left" if name in ("step", "tokens a call") else "right")
    for step in steps:
        table.add_row(
            escape(step.step),
            f"{step.calls:,}",
            f"{step.input_tokens:,}",
            f"{step.output_tokens:,}",
            "unknown" if step.cost_usd is None else f"{step.cost_usd:,.2f}",
            "measured in this run" if step.is_measured else "assumed",
        )
    console.print(table)
    known = [step.cost_usd for step in steps if step.cost_usd is not None]
    note = "" if len(known) == len(steps) else ", without steps whose price is unknown"
    tokens = sum(step.input_tokens + step.output_tokens for step in steps)
    console.print(f"all: {tokens:,} tokens, ${sum(known):,.2f}{note}; repeats and refills excluded")
