"""Writes the golden files by running Megatron-LM's own tools/preprocess_data.py.

    python -m tests.unit.data_prep.documents.megatron_golden.make MEGATRON_LM_DIR

The interpreter needs what that checkout needs (Python 3.12, torch, triton, transformers). The files
here are of NVIDIA/Megatron-LM at commit d98e8a64ddf34856e74b24714e3bedb2f5a39553.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson

HERE = Path(__file__).parent
WIDE_VOCABULARY = 65_600
"""Entries of a vocabulary that Megatron stores as int32."""
CASES = [
    (inputs, width, has_eod)
    for inputs in ("plain", "control")
    for width in ("uint16", "int32")
    for has_eod in (True, False)
]


def golden_name(inputs: str, width: str, has_eod: bool) -> str:
    """Return the stem of a case's two files."""
    return f"{inputs}-{width}-{'eod' if has_eod else 'bare'}"


def write_tokenizer_of_width(folder: Path, width: str) -> Path:
    """Write the golden tokenizer, widened with reserved tokens for int32."""
    content = orjson.loads((HERE / "tokenizer.json").read_bytes())
    if width == "int32":
        first = max(
            *content["model"]["vocab"].values(), *(t["id"] for t in content["added_tokens"])
        )
        shape = content["added_tokens"][0] | {"special": False}
        content["added_tokens"] += [
            shape | {"id": number, "content": f"<reserved_{number}>"}
            for number in range(first + 1, WIDE_VOCABULARY)
        ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(orjson.dumps(content))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps(config))
    return folder


def main() -> None:
    """Run the tool for every case."""
    checkout = Path(sys.argv[1])
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(checkout)])
    with tempfile.TemporaryDirectory() as name:
        for inputs, width, has_eod in CASES:
            tokenizer = write_tokenizer_of_width(Path(name) / width, width)
            command = [sys.executable, str(checkout / "tools" / "preprocess_data.py")]
            command += ["--input", str(HERE / f"{inputs}.jsonl"), "--workers", "1"]
            command += ["--output-prefix", f"{name}/out"]
            command += ["--tokenizer-type", "HuggingFaceTokenizer"]
            command += ["--tokenizer-model", str(tokenizer), *["--append-eod"] * has_eod]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
            for suffix in ("bin", "idx"):
                target = HERE / f"{golden_name(inputs, width, has_eod)}.{suffix}"
                shutil.copy(f"{name}/out_text_document.{suffix}", target)


if __name__ == "__main__":
    main()
