"""The chunked loss is torch's cross entropy of the whole logits, on one rank and on several."""

from typing import Any

import pytest
import torch

from tests.distributed.output_loss_worker import PADDED, VOCAB, problem, save_losses
from tests.distributed.ranks import Device, run_on_ranks

CHUNKS = [1, 10, 37, 1000]


@pytest.fixture(scope="module", params=[1, 2], ids=["tp1", "tp2"])
def found(
    request: pytest.FixtureRequest, device: Device, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """Return what each rank wrote."""
    out = tmp_path_factory.mktemp("losses")
    run_on_ranks(save_losses, request.param, request.param, CHUNKS, out, device=device)
    files = [out / f"rank_{rank}.pt" for rank in range(request.param)]
    return [torch.load(file, weights_only=True, map_location="cpu") for file in files]


def expected() -> dict[str, torch.Tensor]:
    """Return torch's own losses and gradients, in float64."""
    given = problem(torch.float32)
    hidden, weight = (given[name].double().requires_grad_() for name in ("hidden", "weight"))
    losses = torch.nn.functional.cross_entropy(
        hidden @ weight[:VOCAB].T, given["labels"], reduction="none"
    )
    (losses.sum() * 0.5).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    return {"losses": losses.detach(), "hidden": hidden.grad, "weight": weight.grad}


@pytest.mark.parametrize("chunk", CHUNKS)
def test_losses_and_gradients_in_float32(found: list[dict[str, Any]], chunk: int) -> None:
    wanted = expected()
    for rank in found:
        result = rank[f"{chunk} torch.float32"]
        torch.testing.assert_close(result["losses"].double(), wanted["losses"], rtol=1e-5, atol=0)
        torch.testing.assert_close(
            result["hidden"].double(), wanted["hidden"], rtol=1e-5, atol=1e-6
        )
    weight = torch.cat([rank[f"{chunk} torch.float32"]["weight"] for rank in found])
    torch.testing.assert_close(weight.double(), wanted["weight"], rtol=1e-5, atol=1e-6)
    assert not weight[VOCAB:PADDED].any(), "padding rows get no gradient"


def test_chunks_do_not_change_bfloat16_gradients_beyond_its_rounding(
    found: list[dict[str, Any]],
) -> None:
    for rank in found:
        whole = rank["1000 torch.bfloat16"]
        for chunk in (1, 10):
            result = rank[f"{chunk} torch.bfloat16"]
            torch.testing.assert_close(result["losses"], whole["losses"], rtol=1e-2, atol=1e-3)
            for name in ("hidden", "weight"):
                difference = (result[name] - whole[name]).float().norm()
                assert float(difference / whole[name].float().norm()) < 2**-7


def test_a_frozen_weight_gets_no_gradient(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["frozen"]["weight"] is None
        assert torch.equal(rank["frozen"]["hidden"], rank["10 torch.float32"]["hidden"])
