"""Preparing documents, beside Megatron-LM's two tools: whole processes on the same corpus.

    python benchmarks/prep.py --tokenizer HF_DIR [--mb 63] [--megatron-lm DIR] [--repeat 3]

The corpus is made of the text files of this Python installation, about --mb megabytes of JSONL, and
is the same for everyone. Times are of the whole process, start-up included; CPU seconds are of the
process and its workers, and say more than wall time on a machine that others use as well.

Peers: with a checkout of NVIDIA/Megatron-LM its tools/preprocess_data.py (as many workers as there
are CPUs) and tools/preprocess_data_fast.py, and their .bin and .idx are compared with ours byte for
byte. Without one, the algorithm of the standard tool built on `tokenizers`: processes that parse a
line with `json` and encode it, one writer.

Megatron-LM's tools import most of Megatron-LM: what the checkout needs has to be importable here,
by PYTHONPATH if need be (commit d98e8a6: torch, transformers, gigatoken, triton, and Python 3.12 or
a `typing.override` of your own).
"""

import argparse
import filecmp
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_SUFFIXES = (".py", ".pyi", ".md", ".rst", ".txt", ".h", ".hpp")
_LONGEST = 200_000


class Measured(NamedTuple):
    """One whole process."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    """Of its largest process."""


def write_corpus(path: Path, num_bytes: int) -> int:
    """Write a corpus of that size and return its number of documents."""
    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        while written < num_bytes:
            for text in _texts():
                line = json.dumps({"text": text, "id": number, "domain": "code"}) + "\n"
                file.write(line)
                written, number = written + len(line), number + 1
                if written >= num_bytes:
                    break
    return number


def _texts() -> Iterator[str]:
    paths = sysconfig.get_paths()
    for root in dict.fromkeys((paths["stdlib"], paths["purelib"])):
        for path in sorted(Path(root).rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                text = path.read_text(encoding="utf-8", errors="ignore").replace("\0", "")
                if text.strip() and len(text) <= _LONGEST:
                    yield text


def measure(command: list[str], env: dict[str, str], repeat: int) -> Measured:
    """Run a command several times and return the fastest run."""
    runs = []
    for _ in range(repeat):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        wall_s = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        runs.append(Measured(wall_s, cpu_s, after.ru_maxrss / 1024))
    return min(runs)


def commands(options: argparse.Namespace, corpus: Path, folder: Path) -> dict[str, list[str]]:
    """Return the command of each tool."""
    cpus = str(len(os.sched_getaffinity(0)))
    ours = [sys.executable, "-m", "megatron_msm.cli", "prep", "docs", str(corpus), "--force"]
    ours += ["--tokenizer", options.tokenizer, "--special-tokens", "ids"]
    found = {"megatron-msm": [*ours, "--out", str(folder / "ours")]}
    if options.megatron_lm is None:
        same = [sys.executable, __file__, "--tokenizer", options.tokenizer, "--peer", str(corpus)]
        return found | {"standard tool's algorithm on tokenizers": same}
    for name, script, more in (
        ("Megatron-LM preprocess_data.py", "preprocess_data.py", ["--workers", cpus]),
        ("Megatron-LM preprocess_data_fast.py", "preprocess_data_fast.py", ["--use-gigatoken"]),
    ):
        found[name] = [sys.executable, str(Path(options.megatron_lm) / "tools" / script), *more]
        found[name] += ["--input", str(corpus), "--output-prefix", str(folder / script)]
        found[name] += ["--tokenizer-type", "HuggingFaceTokenizer", "--append-eod"]
        found[name] += ["--tokenizer-model", options.tokenizer]
    return found


def run_peer(tokenizer: str, corpus: Path) -> None:
    """Encode like the standard tool: lines to processes, tokens to one writer."""
    cpus = len(os.sched_getaffinity(0))
    with (
        multiprocessing.get_context("fork").Pool(cpus, _start_peer, (tokenizer,)) as pool,
        corpus.open(encoding="utf-8") as lines,
        tempfile.TemporaryFile() as out,
    ):
        for tokens in pool.imap(_peer_encode, lines, 32):
            out.write(tokens)


_peer: Any = None


def _start_peer(tokenizer: str) -> None:
    global _peer
    from tokenizers import Tokenizer

    _peer = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")


def _peer_encode(line: str) -> bytes:
    import numpy as np

    ids = _peer.encode(json.loads(line)["text"], add_special_tokens=False).ids
    return np.array(ids, np.int32).tobytes()


def same_bytes(folder: Path) -> Iterator[str]:
    """Say for each tool of Megatron-LM whether its files are ours."""
    for path in sorted(folder.glob("*_text_document.bin")):
        pairs = [(path.with_suffix(s), folder / f"ours{s}") for s in (".bin", ".idx")]
        is_same = all(filecmp.cmp(one, other, shallow=False) for one, other in pairs)
        name = path.stem.removesuffix("_text_document")
        yield f"{name}: its bytes {'equal ours' if is_same else 'DIFFER from ours'}"


def main() -> None:
    """Measure every tool and print the ratios."""
    parser = argparse.ArgumentParser(description="Preparing documents beside Megatron-LM's tools.")
    parser.add_argument("--tokenizer", required=True, help="folder with tokenizer.json")
    parser.add_argument("--mb", type=float, default=63.0)
    parser.add_argument("--megatron-lm", help="a checkout of NVIDIA/Megatron-LM")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer is not None:
        run_peer(options.tokenizer, options.peer)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = folder / "corpus.jsonl"
        count = write_corpus(corpus, int(options.mb * 1e6))
        size_mb = corpus.stat().st_size / 1e6
        sys.stdout.write(f"{count:,} documents, {size_mb:.1f} MB\n")
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), options.megatron_lm]))
        ours: Measured | None = None
        for title, command in commands(options, corpus, folder).items():
            env = {**os.environ, "PYTHONPATH": path} if ours else dict(os.environ)
            found = measure(command, env, options.repeat)
            ours = ours or found
            sys.stdout.write(
                f"{title:<40} {found.wall_s:7.2f} s wall {found.cpu_s:7.2f} s CPU "
                f"{size_mb / found.wall_s:6.1f} MB/s  {found.wall_s / ours.wall_s:5.1f}x our wall, "
                f"{found.cpu_s / ours.cpu_s:5.1f}x our CPU\n"
            )
            sys.stdout.flush()
        sys.stdout.writelines(f"{line}\n" for line in same_bytes(folder))


if __name__ == "__main__":
    main()
