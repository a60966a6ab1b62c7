"""Preparing chats, beside TRL and axolotl: whole processes on the same conversations.

    python -m benchmarks.chats --tokenizer HF_DIR [--chats 50000] [--trl-python PYTHON]
        [--axolotl-python PYTHON]

The conversations are cut from the text files of this Python installation: two turns each, in the
ChatML form, whose template marks the assistant's turns for TRL. PYTHON is the interpreter of an
environment with the peer: TRL's SFTTrainer prepares the data set with a loss on the assistant alone
and a tiny model, axolotl's chat template strategy runs over it; both with as many processes as
there are CPUs. Every process is measured whole, start-up included; `to prepare` is a peer's own
preparation without its imports and model.
"""

import argparse
import json
import os
import sys
import tempfile
from itertools import islice
from pathlib import Path

from benchmarks.prep import Measured, _texts, measure

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_TRL = """
import json, sys, time
from datasets import load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer
folder, template, corpus, out, processes = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
tokenizer.chat_template = open(template).read()
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
data = load_dataset("json", data_files=corpus, split="train", cache_dir=out)
config = SFTConfig(output_dir=out, assistant_only_loss=True, max_length=None, use_cpu=True,
                   bf16=False, report_to="none", dataset_num_proc=int(processes))
start = time.perf_counter()
trainer = SFTTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
wall = time.perf_counter() - start
rows = trainer.train_dataset.with_format("numpy")
tokens = sum(len(row) for row in rows["input_ids"])
trained = sum(int((row != -100).sum()) for row in rows["labels"])
print(json.dumps({"to prepare": wall, "tokens": tokens, "trained": trained}))
"""
_AXOLOTL = """
import json, sys, time
from axolotl.datasets import TokenizedPromptDataset
from axolotl.prompt_strategies.chat_template import load
from axolotl.utils.dict import DictDefault
from datasets import load_dataset
from transformers import AutoTokenizer
folder, template, corpus, out, processes = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
tokenizer.chat_template = open(template).read()
tokenizer.eos_token = "<|im_end|>"
data = load_dataset("json", data_files=corpus, split="train", cache_dir=out)
settings = DictDefault(sequence_len=1048576, train_on_inputs=False,
                       chat_template="tokenizer_default", eot_tokens=["<|im_end|>"])
start = time.perf_counter()
strategy = load(tokenizer, settings, {"roles_to_train": ["assistant"], "train_on_eos": "turn"})
rows = TokenizedPromptDataset(strategy, data, process_count=int(processes))
wall = time.perf_counter() - start
rows = rows.with_format("numpy")
tokens = sum(len(row) for row in rows["input_ids"])
trained = sum(int((row != -100).sum()) for row in rows["labels"])
print(json.dumps({"to prepare": wall, "tokens": tokens, "trained": trained}))
"""


def write_corpus(path: Path, num_chats: int) -> None:
    """Write conversations of two turns, about 1,200 characters each."""
    pieces = (text[at : at + 300] for text in _texts() for at in range(0, len(text) - 300, 300))
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_chats):
            said = list(islice(pieces, 4))
            if len(said) < 4:
                sys.exit("this Python installation has too little text for so many chats")
            roles = ("user", "assistant") * 2
            messages = [
                {"role": role, "content": f"{role[0]}: {text.strip()}"}
                for role, text in zip(roles, said, strict=True)
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def main() -> None:
    """Measure both and print tokens a second."""
    parser = argparse.ArgumentParser(description="Preparing chats beside peers.")
    parser.add_argument("--tokenizer", required=True, help="folder with tokenizer.json")
    parser.add_argument("--chats", type=int, default=50_000)
    parser.add_argument("--trl-python", help="python of an environment with TRL")
    parser.add_argument("--axolotl-python", help="python of an environment with axolotl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, template, out = folder / "chats.jsonl", folder / "t.jinja", folder / "ours"
        template.write_text(TEMPLATE)
        write_corpus(corpus, options.chats)
        ours = [sys.executable, "-m", "megatron_msm.cli", "prep", "chats", str(corpus)]
        ours += ["--tokenizer", options.tokenizer, "--chat-template", str(template), "--force"]
        ours += ["--end-of-turn", "<|im_end|>", "--max-length", "1048576", "--out", str(out)]
        found = measure(ours, dict(os.environ), 1)
        manifest = json.loads(next(folder.glob("ours*manifest*.json")).read_text())
        tokens = int(manifest["counts"]["tokens"])
        sys.stdout.write(f"{options.chats:,} chats\n")
        _print("megatron-msm", found, tokens)
        sys.stdout.write(f"{'':<14} {manifest['counts']}\n")
        for title, python, text in (
            ("TRL", options.trl_python, _TRL),
            ("axolotl", options.axolotl_python, _AXOLOTL),
        ):
            if python is None:
                continue
            script, log = folder / f"peer_{title}.py", folder / f"{title}.out"
            script.write_text(text)
            command = [python, str(script), options.tokenizer, str(template), str(corpus)]
            command += [str(folder / f"cache_{title}"), str(len(os.sched_getaffinity(0)))]
            shell = [sys.executable, "-c", _TO_FILE, str(log), *command]
            found = measure(shell, dict(os.environ), 1)
            told = json.loads(log.read_text().splitlines()[-1])
            _print(title, found, told["tokens"])
            sys.stdout.write(f"{'':<14} {told}\n")


_TO_FILE = (
    "import subprocess, sys; "
    "sys.exit(subprocess.run(sys.argv[2:], stdout=open(sys.argv[1], 'w')).returncode)"
)


def _print(title: str, found: Measured, tokens: int) -> None:
    sys.stdout.write(
        f"{title:<14} {found.wall_s:7.2f} s wall {found.cpu_s:7.2f} s CPU {tokens:,} tokens, "
        f"{tokens / found.wall_s:,.0f} tokens/s of wall, {tokens / found.cpu_s:,.0f} of CPU\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
