"""Packing, beside TRL's and ms-swift's: time, fill and peak memory on the same lengths.

    python benchmarks/packing.py [--num 1000000] [--pack-length 8192] [--peer-num 100000]

Lengths are lognormal (sigma 1, mean 598 before clipping), as in instruction-tuning mixes. Each
packer runs in a process of its own; the time is that of planning alone, the memory is the peak of
the process above the peak after its imports. Peers run as installed:

- TRL: `trl.data_utils.pack_dataset(strategy="bfd")`. It moves the tokens too, in batches of 1000;
  its memory includes them.
- ms-swift: `swift.dataset.packing.calculate_matched_group` in its windows of 1000 with carry. Where
  ms-swift is not installed, the function that it calls, `binpacking.to_constant_volume`, in the
  same windows; the row then says "binpacking".

A peer that is not installed is named as left out. For a comparison, run peers at the same number of
lengths as us (--peer-num); the default is smaller because they take up to a minute at a million.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.int64]
_WINDOW = 1_000
"""`PackingDataset.PACKING_BATCH_SIZE` of ms-swift 4.6.0."""


def lengths_of(num: int, pack_length: int) -> Lengths:
    """Return lognormal lengths, the same ones every time."""
    generator = np.random.default_rng(0)
    lengths = generator.lognormal(np.log(598) - 0.5, 1.0, num)
    return np.clip(lengths, 2, pack_length).astype(np.int64)


def ours(strategy: str, **settings: Any) -> Callable[[Lengths, int], int]:
    """Return our planner with these settings."""
    from megatron_msm.config.data import PackingConfig
    from megatron_msm.data.packing.strategies import pack_documents

    packing = PackingConfig.model_validate({"strategy": strategy, **settings})
    # A row of n tokens has n - 1 positions with us; the peers pack n.
    return lambda lengths, pack_length: len(pack_documents(lengths + 1, pack_length, packing))


def trl() -> Callable[[Lengths, int], int]:
    """Return TRL's packer; its dataset is built before the clock starts."""
    import datasets
    import pyarrow as pa
    from trl.data_utils import pack_dataset

    datasets.disable_progress_bars()

    def run(lengths: Lengths, pack_length: int) -> int:
        return len(pack_dataset(prepared[0], pack_length, strategy="bfd"))

    def prepare(lengths: Lengths) -> None:
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        values = pa.array(np.zeros(int(offsets[-1]), np.int32))
        column = pa.LargeListArray.from_arrays(pa.array(offsets), values)
        prepared.append(datasets.Dataset(pa.table({"input_ids": column})))

    prepared: list[Any] = []
    run.prepare = prepare  # type: ignore[attr-defined]
    return run


def ms_swift() -> Callable[[Lengths, int], int]:
    """Return ms-swift's packer, or the library function that it calls."""
    try:
        from swift.dataset.packing import calculate_matched_group
    except ImportError:
        calculate_matched_group = _matched_group

    def run(lengths: Lengths, pack_length: int) -> int:
        items = list(enumerate(lengths.tolist()))
        packs, carried = 0, list[tuple[int, int]]()
        for first in range(0, len(items), _WINDOW):
            is_last = first + _WINDOW >= len(items)
            group = [*carried, *items[first : first + _WINDOW]]
            made, carried = calculate_matched_group(group, pack_length, is_finished=is_last)
            packs += len(made)
        return packs

    return run


def _matched_group(
    sequences: list[Any], packing_length: int, is_finished: bool = True
) -> tuple[list[Any], list[Any]]:
    import binpacking

    made = binpacking.to_constant_volume(sequences, packing_length, weight_pos=1)
    return (made, []) if is_finished else (made[:-1], made[-1])


def _swift_name() -> str:
    return "ms-swift" if importlib.util.find_spec("swift") else "binpacking, as ms-swift calls it"


PACKERS: dict[str, tuple[str, Callable[[], Callable[[Lengths, int], int]], tuple[str, ...]]] = {
    "best-fit": ("megatron-msm best-fit", lambda: ours("best-fit"), ()),
    "cap": (
        "megatron-msm best-fit, 32 documents",
        lambda: ours("best-fit", max_documents=32),
        (),
    ),
    "first-fit": ("megatron-msm first-fit-shuffle", lambda: ours("first-fit-shuffle"), ()),
    "concatenate": ("megatron-msm concatenate", lambda: ours("concatenate"), ()),
    "trl": ("TRL pack_dataset bfd", trl, ("trl", "datasets")),
    "swift": (_swift_name(), ms_swift, ("binpacking",)),
}


def measure(name: str, num: int, pack_length: int) -> dict[str, float]:
    """Run one packer in this process."""
    packer = PACKERS[name][1]()
    lengths = lengths_of(num, pack_length)
    before_mib = _peak_mib()
    if hasattr(packer, "prepare"):
        packer.prepare(lengths)
    started = time.perf_counter()
    packs = packer(lengths, pack_length)
    seconds = time.perf_counter() - started
    fill = float(lengths.sum()) / (packs * pack_length)
    return {"seconds": seconds, "packs": packs, "fill": fill, "mib": _peak_mib() - before_mib}


def main() -> None:
    """Measure every packer that is installed and print the ratios."""
    parser = argparse.ArgumentParser(description="Packing beside TRL's and ms-swift's.")
    parser.add_argument("--num", type=int, default=1_000_000)
    parser.add_argument("--peer-num", type=int, default=100_000)
    parser.add_argument("--pack-length", type=int, default=8192)
    parser.add_argument("--one", choices=PACKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(measure(options.one, options.num, options.pack_length)) + "\n")
        return
    sys.stdout.write(
        f"{'packer':<38} {'lengths':>9} {'seconds':>8} {'us each':>8} {'fill':>9} {'MiB':>7}\n"
    )
    baseline: dict[int, dict[str, float]] = {}
    for name, (title, _, needs) in PACKERS.items():
        missing = [package for package in needs if importlib.util.find_spec(package) is None]
        if missing:
            sys.stdout.write(f"{title:<38} left out: {', '.join(missing)} not installed\n")
            continue
        for num in sorted({options.peer_num, options.num if not needs else options.peer_num}):
            found = _in_own_process(name, num, options.pack_length)
            sys.stdout.write(
                f"{title:<38} {num:>9,} {found['seconds']:>8.2f} "
                f"{found['seconds'] / num * 1e6:>8.2f} {found['fill']:>9.3%} {found['mib']:>7.0f}"
            )
            if name == "best-fit":
                baseline[num] = found
            reference = baseline[num]
            sys.stdout.write(
                f"   {found['seconds'] / reference['seconds']:.1f}x the time, "
                f"{found['packs'] / reference['packs']:.4f}x the sequences of best-fit\n"
            )


def _in_own_process(name: str, num: int, pack_length: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, "--num", str(num)]
    command += ["--pack-length", str(pack_length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
