"""A rank that counts instead of training: quick to start, with the trainer's exit protocol.

`python -m tests.integration.slurm_counter FOLDER STEPS STEP_S` counts to STEPS and keeps its count
in FOLDER/rank_N. Asked to stop it finishes its step, writes the count and ends with status 75.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

_stop = False


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _stop
    _stop = True


def main() -> None:
    folder, num_steps, step_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, _on_signal)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / f"rank_{os.environ['RANK']}"
    done = int(saved.read_text()) if saved.exists() else 0
    with (folder / f"starts_{os.environ['RANK']}").open("a") as starts:
        starts.write(f"{done}\n")
    while done < num_steps:
        time.sleep(step_s)
        done += 1
        (folder / f"now_{os.environ['RANK']}").write_text(str(done))
        if _stop:
            saved.write_text(str(done))
            sys.exit(75)
    saved.write_text(str(done))


if __name__ == "__main__":
    main()
