"""`msm generate`: from a Model Spec to documents and chats."""

from megatron_msm.lazy_commands import lazy_app

app = lazy_app(
    {
        "spec": "data_prep.generate.commands:spec",
        "preview": "data_prep.generate.commands:preview",
        "docs": "data_prep.generate.commands:docs",
        "chats": "data_prep.generate.commands:chats",
        "page": "data_prep.generate.commands:page",
        "import": "data_prep.generate.commands:import_",
    },
    help="From a Model Spec to documents and chats, by calls to language models.",
)
