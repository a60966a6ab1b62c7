"""Small Hugging Face folders with random weights, written without transformers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

SMALL_FILES = {
    "generation_config.json": b'{"eos_token_id": 2,   "max_new_tokens": 4}\n',
    "tokenizer_config.json": b'{"eos_token": "</s>", "tokenizer_class": "TokenizersBackend"}',
    "special_tokens_map.json": b'{"eos_token": "</s>"}',
    "chat_template.jinja": "{% for m in messages %}{{ m.content }}é{% endfor %}".encode(),
    "additional_chat_templates/tools.jinja": b"{{ tools }}",
    "vocab.json": b"{}",
    "merges.txt": b"#version: 0.2\n",
    "README.md": b"# A model\r\n",
    "LICENSE": b"Apache-2.0\n",
}


@dataclass(frozen=True)
class Sizes:
    """A Llama too small to be of use."""

    layers: int = 2
    heads: int = 4
    groups: int = 2
    head_dim: int = 8
    hidden: int = 24
    ffn: int = 40
    vocab: int = 61
    tied: bool = False
    dtype: torch.dtype = torch.bfloat16


def config_of(sizes: Sizes) -> dict[str, Any]:
    """Return the config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": sizes.layers,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.ffn,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.groups,
        "head_dim": sizes.head_dim,
        "vocab_size": sizes.vocab,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": sizes.tied,
        "hidden_act": "silu",
        "eos_token_id": 2,
        "torch_dtype": str(sizes.dtype).removeprefix("torch."),
    }


def sizes_of(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the size of every tensor, named and ordered as transformers does it."""
    q, kv = sizes.heads * sizes.head_dim, sizes.groups * sizes.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (sizes.vocab, sizes.hidden)}
    for layer in range(sizes.layers):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (sizes.hidden,),
            prefix + "mlp.down_proj.weight": (sizes.hidden, sizes.ffn),
            prefix + "mlp.gate_proj.weight": (sizes.ffn, sizes.hidden),
            prefix + "mlp.up_proj.weight": (sizes.ffn, sizes.hidden),
            prefix + "post_attention_layernorm.weight": (sizes.hidden,),
            prefix + "self_attn.k_proj.weight": (kv, sizes.hidden),
            prefix + "self_attn.o_proj.weight": (sizes.hidden, q),
            prefix + "self_attn.q_proj.weight": (q, sizes.hidden),
            prefix + "self_attn.v_proj.weight": (kv, sizes.hidden),
        }
    shapes["model.norm.weight"] = (sizes.hidden,)
    if not sizes.tied:
        shapes["lm_head.weight"] = (sizes.vocab, sizes.hidden)
    return shapes


def tensors_of(sizes: Sizes, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return every tensor of the model, random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator).mul(0.3).to(sizes.dtype)
        for name, shape in sizes_of(sizes).items()
    }


def write_hf_folder(
    folder: Path,
    sizes: Sizes | None = None,
    *,
    tensors: dict[str, torch.Tensor] | None = None,
    num_shards: int = 1,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Write a complete folder; return its tensors."""
    sizes = sizes or Sizes()
    tensors = tensors_of(sizes, seed=seed) if tensors is None else tensors
    write_small_files(folder, sizes)
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return tensors
    weight_map = {}
    for number, name in enumerate(tensors):
        shard = number * num_shards // len(tensors) + 1
        weight_map[name] = f"model-{shard:05d}-of-{num_shards:05d}.safetensors"
    for file in set(weight_map.values()):
        chosen = {name: tensors[name] for name in tensors if weight_map[name] == file}
        save_file(chosen, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_bytes(orjson.dumps(index))
    return tensors


def write_small_files(folder: Path, sizes: Sizes) -> None:
    """Write everything but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(orjson.dumps(config_of(sizes)))
    for name, content in SMALL_FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    write_tokenizer(folder, sizes.vocab)


def write_tokenizer(folder: Path, vocab: int) -> None:
    """Write a tokenizer.json of whole words."""
    words = {"<s>": 0, "<unk>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, vocab)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
