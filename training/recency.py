"""Histories with their times, and what time means in them: newer items may weigh more."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from training.ordering import order_by

MS_A_DAY = 86_400_000


class Recency(BaseModel):
    """How much more the newest items of a history weigh: `1 + boost · 2^(-rank / (half_life · items))`, the newest has
    rank 0 of as many items as the history has.

    Ranks, not hours: a viewer who comes back after a year is still told apart from their older self by what they did
    last, and one evening of fifty titles does not count as one moment. Shares of the history, not numbers of items: one
    number says the same to who has ten items and to who has a thousand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    boost: float = Field(0.0, ge=0, description="What the newest item weighs beyond an old one; 0: all weigh the same.")
    half_life: float = Field(0.2, gt=0, description="Share of the history after which the boost has halved.")

    def factors(self, ranks: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """What items are weighed with.

        Args:
            ranks: of the items in their histories, the newest 0.
            lengths: items of the history that each is in.
        """
        return (1 + self.boost * np.exp2(-ranks / (self.half_life * lengths))).astype(np.float32)


UNWEIGHTED = Recency(boost=0.0)


@dataclass(frozen=True)
class Histories:
    """Histories of many people over the items of one version.

    Attributes:
        user_items: (rows, items) CSR, float32, column indices sorted; explicit zeros were seen but speak for nothing.
        at_ms: (nnz,) int64: time of the newest event about each, in milliseconds since 1970, aligned with the values.
    """

    user_items: sparse.csr_matrix
    at_ms: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.user_items.shape[0])

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> "Histories":
        """The histories in these rows."""
        places = self._over(np.arange(self.user_items.nnz))[rows]
        return Histories(self.user_items[rows], self.at_ms[places.data])

    def weighted(self, recency: Recency) -> sparse.csr_matrix:
        """(rows, items) CSR, float32: what models are asked with. Zeros stay zero."""
        if recency.boost == 0:
            return self.user_items
        lengths = np.diff(self.user_items.indptr)
        factors = recency.factors(self._ranks(), np.repeat(lengths, lengths))
        return self._over(self.user_items.data * factors)

    def ages(self) -> npt.NDArray[np.float32]:
        """(nnz,) days before the newest event of all, aligned with the values."""
        newest = self.at_ms.max(initial=0)
        return np.asarray((newest - self.at_ms) / MS_A_DAY, np.float32)

    def _ranks(self) -> npt.NDArray[np.int64]:
        """(nnz,) place of each item in its row, the newest 0; of two as new the heavier, then the later index first."""
        matrix = self.user_items
        lengths = np.diff(matrix.indptr)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        order = order_by(self._by_row_and_time(rows), matrix.data, matrix.indices)
        ranks = np.empty(matrix.nnz, np.int64)
        ranks[order] = np.repeat(matrix.indptr[1:], lengths) - 1 - np.arange(matrix.nnz)
        return ranks

    def _by_row_and_time(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(nnz,) one number that rises with the row, and within a row with time."""
        if not len(rows):
            return rows
        since_first = self.at_ms - self.at_ms.min()
        bits = int(since_first.max()).bit_length()
        if bits + len(self).bit_length() < 63:
            return np.asarray((rows << bits) | since_first)
        # So many rows and times so far apart do not fit in one number, their places in time do.
        _, places = np.unique(since_first, return_inverse=True)
        return np.asarray(rows * len(rows) + places)

    def _over(self, values: npt.NDArray[np.generic]) -> sparse.csr_matrix:
        """The same items with other values."""
        matrix = self.user_items
        return sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)
