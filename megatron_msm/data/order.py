"""In which order packed sequences are visited: a function of (seed, position), with no state.

Position p of a phase is packed sequence `permutation_of_epoch(p // n)[p % n]`. Resuming at any
position is therefore immediate, and the order does not depend on ranks or micro batches.
"""

import numpy as np
import numpy.typing as npt


class PackOrder:
    """Visits `num_packs` packed sequences, newly shuffled each epoch.

    Args:
        num_packs: Packed sequences of the dataset.
        total: Positions of the whole phase; later positions are empty. None means no end.
        seed: Seed of the shuffles.
    """

    def __init__(self, num_packs: int, *, total: int | None, seed: int) -> None:
        self.num_packs = num_packs
        self.total = total
        self.seed = seed
        self._epoch = -1
        self._permutation: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> int | None:
        """Return the packed sequence at `position`, or None past the end of the phase."""
        if self.total is not None and position >= self.total:
            return None
        epoch, place = divmod(position, self.num_packs)
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._permutation = generator.permutation(self.num_packs)
            self._epoch = epoch
        return int(self._permutation[place])
