"""`msm eval`: judge Hugging Face checkpoints, and write the report."""

from megatron_msm.lazy_commands import lazy_app

app = lazy_app(
    {
        "choice": "evals.commands:choice",
        "run": "evals.commands:run",
        "report": "evals.commands:report",
        "contrast": "evals.commands:contrast",
        "power": "evals.commands:power",
    },
    help="Evaluate Hugging Face checkpoints.\n\n"
    "Example: msm eval run suite.yaml exports/msm --out results/msm",
)
