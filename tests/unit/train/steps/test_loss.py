"""The loss of a micro batch."""

import torch

from megatron_msm.train.steps.step import masked_loss


def test_a_masked_position_neither_counts_nor_spreads_what_it_holds() -> None:
    losses_1T = torch.tensor([[float("nan"), 2.0, float("inf"), 3.0]], requires_grad=True)
    mask_1T = torch.tensor([[False, True, False, True]])
    loss, num_tokens, report = masked_loss(losses_1T, mask_1T)
    loss.backward()
    assert (loss.item(), num_tokens.item()) == (5.0, 2)
    assert report.tolist() == [5.0, 2.0]
    assert losses_1T.grad is not None
    assert losses_1T.grad.tolist() == [[0.0, 1.0, 0.0, 1.0]]
