"""`msm generate`: from a Model Spec to documents, chats and tenets."""

from megatron_msm.lazy_commands import lazy_app

app = lazy_app(
    {
        "spec": "data_prep.generate.commands:spec",
        "preview": "data_prep.generate.commands:preview",
        "docs": "data_prep.generate.commands:docs",
        "chats": "data_prep.generate.commands:chats",
        "tenets": "data_prep.generate.commands:tenets",
        "page": "data_prep.generate.commands:page",
        "import": "data_prep.generate.commands:import_",
        "select": "data_prep.generate.corpus_commands:select",
        "balance": "data_prep.health.balance_command:balance",
        "health": "data_prep.health.command:health",
    },
    help="From a Model Spec to documents, chats and tenets, by calls to language models.\n\n"
    "Example: msm generate docs generate.yaml",
)
