"""Logistic regression on sparse counts, in numpy, and the AUC of its scores."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_MOST_STEPS = 150
_TOLERANCE = 1e-5


class SparseRows(NamedTuple):
    """Rows of a matrix by their entries that are not zero."""

    columns: Ints
    """[entries]"""
    values: Floats
    """[entries]"""
    starts: Ints
    """[rows + 1] where each row's entries begin; a row may be empty."""
    num_columns: int

    @property
    def row_of_entry(self) -> Ints:
        """[entries] the row of each."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def take(self, rows: Ints) -> "SparseRows":
        """Return some rows, in the order given."""
        sizes = np.diff(self.starts)[rows]
        starts = np.concatenate(([0], np.cumsum(sizes)))
        shift = np.repeat(self.starts[rows] - starts[:-1], sizes)
        entries = np.arange(int(starts[-1])) + shift
        return SparseRows(self.columns[entries], self.values[entries], starts, self.num_columns)


def fit(rows: SparseRows, labels: Floats, *, penalty: float) -> Floats:
    """Return the weights that minimise mean log loss + penalty / 2 * |w|^2, the last one the bias.

    The bias is not penalised. Rows must have a length of at most 1, which bounds the curvature and
    so fixes the step.

    Args:
        rows: The features.
        labels: [rows] 0 or 1.
        penalty: Strength of the penalty.

    Source: accelerated gradient descent, Nesterov 1983, restarted as in O'Donoghue and Candes 2015.
    """
    owner = rows.row_of_entry
    step = 1.0 / (0.5 + penalty)  # the Hessian is at most (|x|^2 + 1) / 4 + penalty
    weights = np.zeros(rows.num_columns + 1)
    ahead, momentum = weights, 1.0
    for _ in range(_MOST_STEPS):
        gradient = _gradient(rows, owner, labels, ahead, penalty)
        if np.abs(gradient).max() < _TOLERANCE:
            break
        moved = ahead - step * gradient
        if gradient @ (moved - weights) > 0:
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = moved + (momentum - 1) / following * (moved - weights)
        weights, momentum = moved, following
    return weights


def scores(rows: SparseRows, weights: Floats) -> Floats:
    """Return [rows] log odds."""
    return _scores(rows, rows.row_of_entry, weights)


def _scores(rows: SparseRows, owner: Ints, weights: Floats) -> Floats:
    terms = rows.values * weights[rows.columns]
    sums = np.bincount(owner, weights=terms, minlength=len(rows.starts) - 1)
    return sums.astype(np.float64) + float(weights[-1])


def _gradient(
    rows: SparseRows, owner: Ints, labels: Floats, weights: Floats, penalty: float
) -> Floats:
    error = (1 / (1 + np.exp(-_scores(rows, owner, weights))) - labels) / len(labels)
    gradient = penalty * weights
    gradient[:-1] += np.bincount(rows.columns, rows.values * error[owner], rows.num_columns)
    gradient[-1] = error.sum()
    return gradient


def auc(scores: Floats, labels: Floats) -> float:
    """Return the chance that a row of label 1 scores above one of label 0; ties count half.

    Source: Mann and Whitney 1947.
    """
    _, inverse, times = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(times) - (times - 1) / 2)[inverse]
    ones = float(labels.sum())
    zeros = len(labels) - ones
    return float((ranks[labels == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))
