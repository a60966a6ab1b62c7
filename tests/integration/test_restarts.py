"""torchrun starts the ranks anew after a failure, and they train on."""

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.training_runs import metrics_rows

# The first start finds a file where the folder of phase sft belongs; later ones do not.
RANK = """
mkdir -p train
if [ "$TORCHELASTIC_RESTART_COUNT" = 0 ]; then touch train/sft; else rm -f train/sft; fi
exec "$PYTHON" -m megatron_msm.cli train run.yaml 'phases.midtrain.duration={steps: 2}' \\
  'phases.sft.duration={steps: 1}'
"""


def test_ranks_that_torchrun_starts_anew_finish_the_run(run_folder: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "--max-restarts", "1", "--no-python", "bash", "-c", RANK),
        ],
        cwd=run_folder,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "NotADirectoryError" in done.stderr, "the first start did not fail"
    steps = [(row["phase"], row["step"]) for row in metrics_rows(run_folder)]
    assert steps == [("midtrain", 1), ("midtrain", 2), ("sft", 1)]
