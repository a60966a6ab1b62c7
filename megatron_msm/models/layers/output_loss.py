"""The cross entropy of a linear layer's outputs, without all of them in memory at once.

At 8,192 tokens and a vocabulary of 152,000 the logits take 5 GB in float32, their gradient as much.
Here the tokens go through the output layer in chunks: each chunk's logits give its losses and its
share of the gradients, and are dropped. Tokens without a loss (padding, prompts) are left out, not
computed and masked. The gradients are made in the forward pass, so nothing is computed twice; the
backward pass multiplies them by the gradient of the loss, which must be the same for all tokens: a
sum or a mean of the losses.

Legend: T tokens with a loss, C tokens of a chunk, V vocabulary of this tensor parallel rank, H
hidden size, R tensor parallel ranks.
"""

from typing import Any, TypeAlias

import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from torch.nn.functional import linear

LogitsAndBias: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]


class ChunkedLossModel(GPTModel):  # type: ignore[misc]  # megatron-core has no types
    """GPTModel whose loss goes through the output layer in chunks of tokens.

    Without labels it returns logits, as its base does.
    """

    def __init__(self, *, real_vocab_size: int, chunk_tokens: int, **settings: object) -> None:
        """Build the model.

        Args:
            real_vocab_size: Rows of the vocabulary without padding.
            chunk_tokens: Tokens whose logits exist at once.
            **settings: As for GPTModel.
        """
        super().__init__(**settings)
        if self.post_process:
            # GPTModel names the class itself (gpt_model.py:241). The module must stay the one that
            # is called: DistributedDataParallel waits for its weights in a hook of that call.
            self.output_layer.__class__ = LossOutputLayer
            self.output_layer.real_vocab_size = real_vocab_size
            self.output_layer.chunk_tokens = chunk_tokens

    def _postprocess(
        self,
        hidden_states: torch.Tensor,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor | None,
        *args: object,
        loss_mask: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        if not self.post_process or labels is None or loss_mask is None:
            theirs: torch.Tensor = super()._postprocess(
                hidden_states,
                input_ids,
                position_ids,
                labels,
                *args,
                loss_mask=loss_mask,
                **kwargs,
            )
            return theirs
        shared = self.share_embeddings_and_output_weights
        weight = self.shared_embedding_or_output_weight() if shared else None
        losses_BS: torch.Tensor = self.output_layer(
            hidden_states, weight, labels=labels, loss_mask=loss_mask
        )
        return losses_BS


class LossOutputLayer(ColumnParallelLinear):  # type: ignore[misc]  # megatron-core has no types
    """megatron-core's output layer; given labels it returns losses in the place of logits."""

    real_vocab_size: int
    chunk_tokens: int

    def forward(
        self,
        input_: torch.Tensor,
        weight: torch.Tensor | None = None,
        runtime_gather_output: bool | None = None,
        *,
        labels: torch.Tensor | None = None,
        loss_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | LogitsAndBias:
        """Return logits and bias, or with labels the losses.

        Args:
            input_: Hidden states [S, B, H]; of this rank's tokens under sequence parallelism.
            weight: [V, H], when the layer has none of its own.
            runtime_gather_output: See the base class.
            labels: int64 [B, S]
            loss_mask: bool [B, S]; where it is False the loss is 0 and nothing is computed.

        Returns:
            With labels float32 [B, S], else as the base class.
        """
        if labels is None or loss_mask is None:
            theirs: LogitsAndBias = super().forward(input_, weight, runtime_gather_output)
            return theirs
        weight_VH = self.weight if weight is None else weight
        region = (
            gather_from_sequence_parallel_region
            if self.sequence_parallel
            else copy_to_tensor_model_parallel_region
        )
        hidden_SBH = region(input_, group=self.tp_group)
        chosen_BS = loss_mask.nonzero(as_tuple=True)
        losses_T = linear_cross_entropy(
            hidden_SBH.transpose(0, 1)[chosen_BS],
            weight_VH,
            labels[chosen_BS],
            real_vocab_size=self.real_vocab_size,
            chunk_tokens=self.chunk_tokens,
            tp_group=self.tp_group,
        )
        return torch.zeros_like(labels, dtype=torch.float32).index_put(chosen_BS, losses_T)


def linear_cross_entropy(
    hidden_TH: torch.Tensor,
    weight_VH: torch.Tensor,
    labels_T: torch.Tensor,
    *,
    real_vocab_size: int,
    chunk_tokens: int,
    tp_group: torch.distributed.ProcessGroup,
) -> torch.Tensor:
    """Return the cross entropy of `hidden @ weight.T` for each token, float32 [T].

    Args:
        hidden_TH: The same on every rank of `tp_group`.
        weight_VH: This rank's rows of the vocabulary; may be frozen.
        labels_T: int64, global vocabulary indices.
        real_vocab_size: Rows from here on pad the vocabulary and get no probability.
        chunk_tokens: Tokens whose logits exist at once.
        tp_group: The ranks that share the vocabulary.
    """
    losses: torch.Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_TH,
        weight_VH,
        labels_T,
        _Vocabulary(weight_VH.shape[0], real_vocab_size, tp_group),
        chunk_tokens,
        torch.is_grad_enabled(),
    )
    return losses


class _Vocabulary:
    """This rank's part of the vocabulary."""

    def __init__(self, rows: int, real: int, tp_group: torch.distributed.ProcessGroup) -> None:
        self.first = tp_group.rank() * rows
        self.num_real = min(max(real - self.first, 0), rows)
        self.group = tp_group
        self.size = tp_group.size()

    def sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        if self.size > 1:
            torch.distributed.all_reduce(values, group=self.group)
        return values

    def logsumexp_over_ranks(self, local_C: torch.Tensor) -> torch.Tensor:
        if self.size == 1:
            return local_C
        parts = local_C.new_empty(self.size * len(local_C))
        torch.distributed.all_gather_into_tensor(parts, local_C, group=self.group)
        return torch.logsumexp(parts.view(self.size, -1), dim=0)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: torch.Tensor,
        weight_VH: torch.Tensor,
        labels_T: torch.Tensor,
        vocabulary: _Vocabulary,
        chunk_tokens: int,
        has_backward: bool,
    ) -> torch.Tensor:
        losses_T = hidden_TH.new_empty(len(labels_T), dtype=torch.float32)
        needs_hidden, needs_weight = (has_backward and need for need in ctx.needs_input_grad[:2])
        grad_hidden_TH = torch.empty_like(hidden_TH) if needs_hidden else None
        # Chunks are added up in float32: rounding to bfloat16 each time would lose the small ones.
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if needs_weight else None
        for start in range(0, len(labels_T), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            probabilities_CV, losses_T[chunk], here = _losses_of_chunk(
                linear(hidden_TH[chunk], weight_VH), labels_T[chunk], vocabulary
            )
            if grad_hidden_TH is None and grad_weight_VH is None:
                continue
            # The derivative of the losses by the logits: probabilities, less one at the label.
            probabilities_CV[here] -= 1.0
            grad_logits_CV = probabilities_CV.to(weight_VH.dtype)
            if grad_hidden_TH is not None:
                torch.mm(grad_logits_CV, weight_VH, out=grad_hidden_TH[chunk])
            if grad_weight_VH is not None:
                grad_weight_VH += grad_logits_CV.T @ hidden_TH[chunk]
        if grad_weight_VH is not None:
            grad_weight_VH = grad_weight_VH.to(weight_VH.dtype)
        ctx.save_for_backward(grad_hidden_TH, grad_weight_VH)
        return losses_T

    @staticmethod
    def backward(ctx: Any, grad_T: torch.Tensor) -> Any:
        grad_hidden_TH, grad_weight_VH = ctx.saved_tensors
        if len(grad_T) == 0:
            return grad_hidden_TH, grad_weight_VH, None, None, None, None
        grad = grad_T[0]
        # No read of the value on a GPU, where it would wait for all that is queued.
        torch._assert_async((grad_T == grad).all(), "all losses must have the same weight")
        if grad_hidden_TH is not None:
            grad_hidden_TH = grad_hidden_TH.mul_(grad)
        if grad_weight_VH is not None:
            grad_weight_VH = grad_weight_VH.mul_(grad)
        return grad_hidden_TH, grad_weight_VH, None, None, None, None


def _losses_of_chunk(
    logits_CV: torch.Tensor, labels_C: torch.Tensor, vocabulary: _Vocabulary
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Return probabilities [C, V] and losses [C] in float32, and where this rank's labels are."""
    logits_CV[:, vocabulary.num_real :] = torch.finfo(logits_CV.dtype).min
    largest_C = logits_CV.amax(dim=-1).float()
    probabilities_CV = torch.softmax(logits_CV, dim=-1, dtype=torch.float32)
    # The largest probability is never too small for its logarithm, as the label's may be.
    local_C = largest_C - probabilities_CV.amax(dim=-1).log()
    global_C = vocabulary.logsumexp_over_ranks(local_C)
    if vocabulary.size > 1:
        probabilities_CV *= (local_C - global_C).exp().unsqueeze(-1)
    columns_C = labels_C - vocabulary.first
    tokens = ((columns_C >= 0) & (columns_C < vocabulary.num_real)).nonzero().squeeze(-1)
    here = (tokens, columns_C[tokens])
    label_logits_C = torch.zeros_like(largest_C)
    label_logits_C[tokens] = logits_CV[here].float()
    return probabilities_CV, global_C - vocabulary.sum_over_ranks(label_logits_C), here
