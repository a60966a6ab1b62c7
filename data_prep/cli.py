"""`msm prep`: corpora to Megatron indexed datasets."""

from megatron_msm.lazy_commands import lazy_app

app = lazy_app(
    {
        "docs": "data_prep.prepare_commands:docs",
        "chats": "data_prep.prepare_commands:chats",
        "show": "data_prep.dataset_commands:show",
        "check": "data_prep.dataset_commands:check",
        "merge": "data_prep.prepare_commands:merge",
        "pack": "data_prep.dataset_commands:pack",
        "rows": "data_prep.dataset_commands:rows",
        "stats": "data_prep.dataset_commands:stats",
        "contamination": "data_prep.dataset_commands:contamination",
        "subset": "data_prep.dataset_commands:subset",
        "dedup": "data_prep.dataset_commands:dedup",
        "health": "data_prep.health.command:health",
    },
    help="Turn documents and chats into Megatron indexed datasets, and look at them.\n\n"
    "Example: msm prep docs docs.jsonl --tokenizer models/SmolLM2 --out data/docs",
)
