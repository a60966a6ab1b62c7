"""A run of a tensor's elements, as boxes."""

import numpy as np
import pytest

from megatron_msm.runtime.optimizer_shards import boxes


@pytest.mark.parametrize("shape", [(7,), (4, 5), (1, 6), (6, 1), (3, 2, 4), (2, 3, 2, 2)])
def test_boxes_hold_the_run_and_nothing_else_in_its_order(shape: tuple[int, ...]) -> None:
    numbers = np.arange(np.prod(shape)).reshape(shape)
    for start in range(numbers.size):
        for end in range(start + 1, numbers.size + 1):
            found = list(boxes(shape, start, end))
            parts = [
                numbers[tuple(slice(o, o + n) for o, n in zip(*box, strict=True))].ravel()
                for box in found
            ]
            assert np.concatenate(parts).tolist() == list(range(start, end))
            assert len(found) <= 2 * len(shape) - 1


def test_a_scalar_is_one_box() -> None:
    assert list(boxes((), 0, 1)) == [((), ())]
