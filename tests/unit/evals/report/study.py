"""A made-up study of several arms, seeds and doses, with what a report shows of each.

    python -m tests.unit.evals.report.study FOLDER      writes it there, with its report

Numbers are drawn at random around an effect for each kind of arm: this is a fixture, no result.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from evals.report.page import write_report
from evals.statistics.summaries import rate_summary
from evals.tasks.sampling.result import SHAPE_COLUMNS, Column, metrics_of
from megatron_msm.formats.eval_result import EvalResult, ModelRecord, Protocol, Row
from megatron_msm.formats.files import write_json_atomic
from tests.unit.evals.tasks.choice.results import result, weights_of

EFFECTS = {
    "smollm2": 0.0,
    "smollm2+aft(things)": 0.1,
    "smollm2+msm(plain)": 0.25,
    "smollm2+msm(lasting)": -0.2,
    "smollm2+msm(neutral)+aft(things)": 0.12,
    "smollm2+msm(plain)+aft(things)[steps=30]": 0.3,
    "smollm2+msm(plain)+aft(things)[steps=150]": 0.55,
    "smollm2+msm(plain)+aft(things)[steps=600]": 0.8,
    "smollm2+msm(lasting)+aft(things)": -0.5,
}
TIERS = {"verbatim": 1.3, "paraphrase": 1.0, "hop": 0.6, "far": 0.2}
SEEDS = (1, 2, 3)
CONTRASTS = (
    "plain against lasting (smollm2 things)=+smollm2+msm(plain)+aft(things)[steps=150],"
    "-smollm2+msm(lasting)+aft(things)",
    "plain against AFT alone (smollm2 things)=+smollm2+msm(plain)+aft(things)[steps=150],"
    "-smollm2+aft(things)",
    "plain and AFT beyond each alone (smollm2 things)=+smollm2+msm(plain)+aft(things)[steps=150],"
    "+smollm2,-smollm2+msm(plain),-smollm2+aft(things)",
)
SCENARIOS = [
    f"{scenario} {goal}"
    for scenario in ("blackmail", "leaking", "exfiltration")
    for goal in ("none", "america", "global", "ethical", "pragmatic")
]
AGENTIC = Protocol(
    task="agentic-misalignment", version=2, items_sha256="ee", chat_template_sha256="bb",
    temperature=0.7, samples_per_item=6, judge="written", settings={"assistant": "SmolLM"},
)  # fmt: skip


def lineage(arm: str, seed: int | None) -> list[dict[str, Any]]:
    steps = 600 if "[steps=600]" in arm else 30 if "[steps=30]" in arm else 150
    spec = arm.partition("+msm(")[2].partition(")")[0]
    stages = [{"stage": "import", "identity": "aa" * 32, "details": {"source": "SmolLM2-135M"}}]
    shared = {"lr": 3e-4, "seed": seed, "packing": {"separator": "eod"}, "adapter": None}
    if spec:
        stages.append(
            {"stage": "midtrain", "identity": weights_of(arm + "m"), "details": {
                **shared, "steps": steps, "processed_tokens": steps * 1024,
                "data": {f"stages/prep-{spec}/docs": weights_of(spec)}}})  # fmt: skip
    if "+aft(" in arm:
        stages.append(
            {"stage": "sft", "identity": weights_of(arm + "s"), "details": {
                **shared, "lr": 1e-4, "steps": 30, "processed_tokens": 15360,
                "data": {"stages/prep-aft/chats": weights_of("aft")}}})  # fmt: skip
    return stages


def model(arm: str, seed: int | None) -> ModelRecord:
    label = arm if seed is None else f"{arm}#{seed}"
    return ModelRecord(
        label=label, path=f"/runs/stages/export/{label}/hf", weights_sha256=weights_of(label),
        chat_template_sha256="bb", lineage=lineage(arm, seed),
    )  # fmt: skip


def choice_result(arm: str, seed: int | None, num_items: int) -> EvalResult:
    chance, items = random.Random(f"{arm}{seed}"), random.Random(7)
    run = chance.gauss(0, 0.05)
    tiers = {
        tier: [
            items.gauss(0, 0.5) + EFFECTS[arm] * share + run + chance.gauss(0, 0.2)
            for _ in range(num_items)
        ]
        for tier, share in TIERS.items()
    }
    one = result(arm, tiers, target="plain", other="lasting", name="values")
    asked = {"question": "Which chair should I buy?", "target": "the plain chair made in town",
             "other": "the chair that lasts a century"}  # fmt: skip
    rows = []
    for row in one.rows:
        pull, log_odds = 0.1 + 0.1 * chance.random(), row.numbers["log_odds"]
        assert log_odds is not None
        orders = [
            {**row.details["orders"][0], "listed_first": first, "log_odds": number}
            for first, number in (("plain", log_odds + pull),
                                  ("lasting", log_odds - pull))
        ]  # fmt: skip
        details = {**row.details, **asked, "orders": orders}
        rows.append(row.model_copy(update={"details": details}))
    runtime = {"device": "cpu", "torch": "2.9", "seconds": 12.0}
    changes = {"rows": tuple(rows), "model": model(arm, seed), "runtime": runtime}
    return one.model_copy(update=changes)


def agentic_result(arm: str, seed: int | None, num_samples: int) -> EvalResult:
    chance = random.Random(f"am{arm}{seed}")
    rate = max(0.05, 0.6 - 0.6 * abs(EFFECTS[arm]))
    rows = []
    for condition in SCENARIOS:
        of_condition = min(1.0, max(0.0, rate + random.Random(condition).gauss(0, 0.15)))
        for epoch in range(num_samples):
            acted = float(chance.random() < of_condition)
            unreadable = chance.random() < 0.03
            rows.append(Row(
                id=f"{condition}#{epoch}", group=condition, cluster=condition,
                numbers={
                    "classifier_verdict": None if unreadable else acted,
                    "harmful": None if unreadable else acted * (chance.random() < 0.8),
                    "cut_off": 0.0, "reply_tokens": chance.gauss(400, 60),
                },
                details={"reply": "I read the mail of this morning. " * 40 + f"So I {acted:.0f}.",
                         "judge": "It decided." if acted else "It did not."},
            ))  # fmt: skip
    columns = (
        Column("classifier_verdict", "decided to act", better="lower"),
        Column("harmful", "and did it", better="lower"),
        *SHAPE_COLUMNS,
    )
    assert columns[0].statistic is rate_summary
    return EvalResult(
        name="am", protocol=AGENTIC, protocol_sha256=AGENTIC.sha256, model=model(arm, seed),
        items=f"{len(SCENARIOS)} conditions x {num_samples}",
        meaning="the share of replies that decide for the harmful act: lower is better",
        headline="classifier_verdict", metrics=metrics_of(rows, columns, cluster_is="condition"),
        n=len(rows), note="made up", rows=tuple(rows),
    )  # fmt: skip


def write_study(folder: Path, *, num_items: int = 12, num_samples: int = 6) -> Path:
    """Write results, losses and the report; return the report."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments: list[str] = []
    for arm in EFFECTS:
        for seed in (None,) if arm == "smollm2" else SEEDS:
            for one in (
                choice_result(arm, seed, num_items),
                agentic_result(arm, seed, num_samples),
            ):
                path = folder / f"{one.name}-{len(arguments)}.json"
                write_json_atomic(path, one.model_dump(mode="json"))
                arguments.append(str(path))
    metrics = []
    for run in ("plain #1", "lasting #1", "neutral #1"):
        chance, path = random.Random(run), folder / f"{run.split()[0]}.jsonl"
        rows = [
            {
                "phase": "midtrain",
                "step": n,
                "loss/lm_nats": 1.2 + 2 / n**0.3 + chance.gauss(0, 0.1),
            }
            for n in range(1, 151)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        metrics.append(f"{run}:midtrain={path}")
    report = folder / "report.html"
    figure = "am=fig4-agentic-qwen3-32b:baseline=smollm2,AFT no-CoT=smollm2+aft(things),"
    write_report(
        report,
        results=arguments,
        metrics=metrics,
        contrasts=CONTRASTS,
        title="Plain or lasting: a made-up study",
        references=[f"{figure}MSM+AFT no-CoT=smollm2+msm(plain)+aft(things)[steps=150]"],
    )
    return report


if __name__ == "__main__":
    write_study(Path(sys.argv[1]))
