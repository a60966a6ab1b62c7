import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_msm.models.families.llama import LLAMA
from megatron_msm.models.families.registry import ARCHITECTURES, table_for
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.tensor_table import MappedTensor, QkvByGroup, hf_tensors


def shape_of(
    *,
    heads: int = 4,
    groups: int = 2,
    head_dim: int = 2,
    hidden: int = 3,
    ffn: int = 5,
    vocab: int = 7,
    layers: int = 2,
    tied: bool = False,
) -> ModelShape:
    return ModelShape(
        model_type="llama",
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        num_attention_heads=heads,
        num_query_groups=groups,
        head_dim=head_dim,
        vocab_size=vocab,
        max_position_embeddings=16,
        norm_epsilon=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=tied,
    )


def mapped_by_key(shape: ModelShape) -> dict[str, MappedTensor]:
    return {tensor.key: tensor for tensor in LLAMA.table.expand(shape)}


def test_qkv_rows_are_interleaved_by_group() -> None:
    # Each row holds its own label: head h of q at dimension d is 100 + 10 h + d, and so on.
    shape = shape_of(heads=4, groups=2, head_dim=2, hidden=1)
    q = torch.tensor([[100.0 + 10 * h + d] for h in range(4) for d in range(2)])
    k = torch.tensor([[200.0 + 10 * g + d] for g in range(2) for d in range(2)])
    v = torch.tensor([[300.0 + 10 * g + d] for g in range(2) for d in range(2)])
    fused = mapped_by_key(shape)["decoder.layers.0.self_attention.linear_qkv.weight"].fuse(
        [q, k, v]
    )
    # group 0: q0 q1 k0 v0, group 1: q2 q3 k1 v1
    assert fused.flatten().tolist() == [
        *(100, 101, 110, 111, 200, 201, 300, 301),
        *(120, 121, 130, 131, 210, 211, 310, 311),
    ]


def test_qkv_is_taken_apart_as_megatron_core_does_it() -> None:
    """The arithmetic of SelfAttention.get_query_key_value_tensors, on x = identity."""
    shape = shape_of(heads=6, groups=3, head_dim=4, hidden=5)
    tensor = mapped_by_key(shape)["decoder.layers.1.self_attention.linear_qkv.weight"]
    parts = [torch.randn(size) for size in tensor.hf_sizes]
    mixed = tensor.fuse(parts).T.reshape(5, 1, 3, (2 + 2) * 4)  # [sq, b, ng, (np/ng + 2) * hn]
    query, key, value = torch.split(mixed, [2 * 4, 4, 4], dim=3)
    assert torch.equal(query.reshape(5, 24).T, parts[0])
    assert torch.equal(key.reshape(5, 12).T, parts[1])
    assert torch.equal(value.reshape(5, 12).T, parts[2])


@given(
    groups=st.integers(1, 4),
    heads_per_group=st.integers(1, 4),
    head_dim=st.integers(1, 8),
    hidden=st.integers(1, 6),
    ffn=st.integers(1, 6),
    vocab=st.integers(1, 9),
    tied=st.booleans(),
)
def test_split_undoes_fuse(
    groups: int, heads_per_group: int, head_dim: int, hidden: int, ffn: int, vocab: int, tied: bool
) -> None:
    shape = shape_of(
        heads=groups * heads_per_group,
        groups=groups,
        head_dim=head_dim,
        hidden=hidden,
        ffn=ffn,
        vocab=vocab,
        layers=1,
        tied=tied,
    )
    for tensor in LLAMA.table.expand(shape):
        parts = [torch.randn(size).bfloat16() for size in tensor.hf_sizes]
        fused = tensor.fuse(parts)
        assert tuple(fused.shape) == tensor.size
        assert fused.numel() == sum(part.numel() for part in parts)
        for part, again in zip(parts, tensor.split(fused), strict=True):
            assert torch.equal(part, again)


def test_qkv_fusion_works_for_biases() -> None:
    shape = shape_of()
    parts = [torch.randn(8), torch.randn(4), torch.randn(4)]
    sizes = [tuple(part.shape) for part in parts]
    fused = torch.empty(16)
    for view, part in zip(QkvByGroup().views(fused, sizes, shape), parts, strict=True):
        view.copy_(part.reshape(view.shape))
    # group 0: two query heads, key, value; then group 1
    q, k, v = parts
    assert torch.equal(fused, torch.cat([q[:4], k[:2], v[:2], q[4:], k[2:], v[2:]]))


def test_gate_comes_before_up() -> None:
    tensor = mapped_by_key(shape_of())["decoder.layers.0.mlp.linear_fc1.weight"]
    assert tensor.hf_names == (
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
    )
    fused = tensor.fuse([torch.zeros(5, 3), torch.ones(5, 3)])
    assert fused[:5].eq(0).all()
    assert fused[5:].eq(1).all()


def test_padded_vocabulary_rows_are_dropped_and_only_there() -> None:
    tensors = mapped_by_key(shape_of(vocab=7))
    embedding = tensors["embedding.word_embeddings.weight"]
    assert embedding.fits((7, 3))
    assert embedding.fits((128, 3))
    assert not embedding.fits((6, 3))
    assert not embedding.fits((128, 4))
    (trimmed,) = embedding.split(torch.arange(30.0).reshape(10, 3))
    assert torch.equal(trimmed, torch.arange(21.0).reshape(7, 3))
    assert not tensors["decoder.layers.0.mlp.linear_fc2.weight"].fits((128, 5))


def test_names_cover_a_model_once() -> None:
    untied, tied = LLAMA.table.expand(shape_of()), LLAMA.table.expand(shape_of(tied=True))
    assert {tensor.key for tensor in untied} - {tensor.key for tensor in tied} == {
        "output_layer.weight"
    }
    names = [name for name, _ in hf_tensors(untied)]
    assert len(names) == len(set(names)) == 3 + 9 * 2
    assert "{" not in "".join(names) + "".join(tensor.key for tensor in untied)


def test_buffers_of_old_files_are_known() -> None:
    assert table_for(shape_of()) is ARCHITECTURES["llama"].table
    assert table_for(shape_of()).buffer_names(shape_of()) == {
        "model.rotary_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.1.self_attn.rotary_emb.inv_freq",
    }
