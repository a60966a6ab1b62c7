"""In which order packed sequences are visited: a function of (seed, position), with no state.

Position p of a phase belongs to one source and is the j-th visit to it. A source is visited in
whole passes, each newly shuffled, and after those in a part of a pass, if its amount asks for one.
Sources are interleaved evenly: of n visits, the j-th is in the j-th of n equal stretches of the
phase, at a point drawn by the seed. Resuming at any position is therefore immediate, and the order
does not depend on ranks or micro batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megatron_msm.data.interleaving import Interleaving
from megatron_msm.data.random_streams import PART, ROWS, random_stream


@dataclass(frozen=True)
class Visits:
    """The packed sequences of one source, and how many visits they get in a phase."""

    num_packs: int
    """Packed sequences of a whole pass."""
    total: int
    """Visits of the phase."""
    part_packs: int = 0
    """Packed sequences of the partial pass at the end, numbered after those of the whole pass."""
    num_passes: int | None = None
    """Whole passes before the part; None means as many as `total` asks for, and no part."""

    def __post_init__(self) -> None:
        passes = self.num_passes
        assert passes is None or self.total <= passes * self.num_packs + self.part_packs, self

    @property
    def size(self) -> int:
        """Packed sequences of the source, those of the part included."""
        return self.num_packs + self.part_packs

    def split(self, count: int) -> tuple[int, int, int]:
        """Divide the first `count` visits.

        Returns:
            Whole passes, visits of an unfinished pass, visits of the part.
        """
        passes = 0 if not self.num_packs else count // self.num_packs
        if self.num_passes is not None and passes >= self.num_passes:
            return self.num_passes, 0, count - self.num_passes * self.num_packs
        return passes, count - passes * self.num_packs, 0


class PackOrder:
    """Visits the packed sequences of one or several sources.

    Args:
        sources: What is visited how often; their packed sequences are numbered one after the other.
        seed: Seed of the shuffles.
        total: Positions of the phase, when it ends before the sources' visits do.
    """

    def __init__(self, sources: Sequence[Visits], *, seed: int, total: int | None = None) -> None:
        self.sources = tuple(sources)
        self.seed = seed
        available = sum(source.total for source in sources)
        self.total = available if total is None else min(total, available)
        self._first = np.cumsum([0, *(source.size for source in sources)])
        self._shuffles: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}
        self._interleaved = Interleaving([source.total for source in sources], seed=seed)

    def __getitem__(self, position: int) -> int | None:
        """Return the packed sequence at `position`, or None past the end of the phase."""
        if position >= self.total:
            return None
        source, visit = self._interleaved.visit_at(position)
        return int(self._first[source]) + self._pack(source, visit)

    def visits_before(self, position: int) -> list[int]:
        """Return how often each source was visited before `position`."""
        return self._interleaved.visits_before(min(position, self.total))

    def first_visits(self, source: int, pass_index: int | None, count: int) -> list[int]:
        """Return the first packed sequences of a pass, numbered inside it; None is the part."""
        return [int(pack) for pack in self._shuffle(source, pass_index)[:count]]

    def _pack(self, source: int, visit: int) -> int:
        """Return the packed sequence, counted inside the source, of its visit number `visit`."""
        visits = self.sources[source]
        passes, unfinished, part = visits.split(visit)
        if passes == visits.num_passes:
            return visits.num_packs + int(self._shuffle(source, None)[part])
        return int(self._shuffle(source, passes)[unfinished])

    def _shuffle(self, source: int, pass_index: int | None) -> npt.NDArray[np.int64]:
        stream = PART if pass_index is None else pass_index
        known = self._shuffles.get(source)
        if known is None or known[0] != stream:
            visits = self.sources[source]
            size = visits.part_packs if pass_index is None else visits.num_packs
            known = stream, random_stream(self.seed, source, stream).permutation(size)
            self._shuffles[source] = known
        return known[1]


def row_order(num_rows: int, *, seed: int, source: int) -> npt.NDArray[np.int64]:
    """Return the order in which a source's rows are drawn when only some of them are."""
    return random_stream(seed, source, ROWS).permutation(num_rows)
