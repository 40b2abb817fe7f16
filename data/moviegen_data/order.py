"""The order of samples: a pure function of the seed and the pass, computable at any position without what came before."""

import hashlib
from collections.abc import Sequence

import numpy as np


class SampleOrder:
    """An endless sequence of passes over the samples of many shards; each pass holds every sample once.

    Shuffled, a pass permutes the shards and then the samples inside windows of neighbouring shards, so that a reader of consecutive
    positions opens few shards at a time.

    Args:
        counts: samples per shard.
        chosen: sample numbers (over all shards, ascending) that take part; all of them unless given.
        seed: anything that identifies this order; equal seeds give equal orders.
        shuffle: false keeps the shards' own order in every pass.
        window_shards: shards that are shuffled into each other.
    """

    def __init__(
        self,
        counts: Sequence[int],
        *,
        chosen: np.ndarray | None = None,
        seed: Sequence[int] = (0,),
        shuffle: bool = True,
        window_shards: int = 16,
    ) -> None:
        self._edges = np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))])
        self._chosen = chosen
        if chosen is not None:
            self._edges = np.searchsorted(chosen, self._edges)
        self.num_samples = int(self._edges[-1])
        self.seed = tuple(int(part) for part in seed)
        self.shuffle = shuffle
        self.window_shards = window_shards
        self._last_layout: tuple[int, np.ndarray, np.ndarray] | None = None
        self._last_window: tuple[int, int, np.ndarray] | None = None

    def identity(self) -> str:
        """SHA-256 over all that decides the order."""
        digest = hashlib.sha256(repr((self.seed, self.shuffle, self.window_shards)).encode())
        for numbers in (self._edges, self._chosen):
            digest.update(b"all" if numbers is None else np.ascontiguousarray(numbers, dtype=np.int64).tobytes())
        return digest.hexdigest()

    def take(self, start: int, stop: int) -> np.ndarray:
        """Sample numbers at positions `start` to `stop` of the endless sequence."""
        assert self.num_samples > 0 and 0 <= start <= stop
        taken = [np.empty(0, dtype=np.int64)]
        while start < stop:
            epoch, position = divmod(start, self.num_samples)
            shards, edges = self._layout(epoch)
            window = int(np.searchsorted(edges, position, side="right")) - 1
            taken.append(self._window(epoch, window, shards)[position - edges[window] :][: stop - start])
            start += len(taken[-1])
        positions = np.concatenate(taken)
        return positions if self._chosen is None else self._chosen[positions]

    def _layout(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if self._last_layout is None or self._last_layout[0] != epoch:
            lengths = np.diff(self._edges)
            shards = np.flatnonzero(lengths)
            if self.shuffle:
                shards = np.random.default_rng((*self.seed, epoch)).permutation(shards)
            windows = np.add.reduceat(lengths[shards], np.arange(0, len(shards), self.window_shards))
            self._last_layout = (epoch, shards, np.concatenate([[0], np.cumsum(windows)]))
        return self._last_layout[1:]

    def _window(self, epoch: int, window: int, shards: np.ndarray) -> np.ndarray:
        if self._last_window is None or self._last_window[:2] != (epoch, window):
            inside = shards[window * self.window_shards :][: self.window_shards]
            positions = np.concatenate([np.arange(self._edges[shard], self._edges[shard + 1]) for shard in inside])
            if self.shuffle:
                positions = np.random.default_rng((*self.seed, epoch, window)).permutation(positions)
            self._last_window = (epoch, window, positions)
        return self._last_window[2]
