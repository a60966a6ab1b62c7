"""Random numbers as a function of (seed, source, purpose), with no state."""

import numpy as np

# Streams below are the shuffles of a source's passes.
PART = 0xFFFF_FFFF
ROWS = 0xFFFF_FFFE
VISITS = 0xFFFF_FFFD

_DRAWS_PER_COUNT = 4
"""Philox-4x64 makes four 64-bit draws of one value of its counter."""


def random_stream(seed: int, source: int, stream: int, *, skip: int = 0) -> np.random.Generator:
    """Return an independent generator for each (seed, source, stream).

    Args:
        seed: Of the run.
        source: Which of the phase's sources.
        stream: What for.
        skip: Begin after so many draws, at no cost.
    """
    key = np.array([seed % 2**64, (source << 32) + stream], np.uint64)
    bits = np.random.Philox(key=key)
    bits.advance(skip // _DRAWS_PER_COUNT)
    generator = np.random.Generator(bits)
    generator.random(skip % _DRAWS_PER_COUNT)
    return generator
