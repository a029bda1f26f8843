"""Which worker holds which shards. Pure: knows names and sizes, no files, no processes.

Every shard is held by as many workers as there are to be replicas, on different nodes where there are
several; the bytes are spread evenly; and what a worker holds already stays where it is, unless it has far too
much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Placement = Mapping[str, tuple[str, ...]]
"""By shard, the workers that hold it."""

_EVEN_ENOUGH = 0.15


def n_copies(n_shards: int, n_workers: int, replicas: int) -> int:
    """How many workers hold each shard: the replicas, or more where workers would have nothing to do.

    >>> n_copies(4, 4, 2), n_copies(1, 4, 2), n_copies(4, 1, 2)
    (2, 4, 1)
    """
    return min(n_workers, max(replicas, n_workers // n_shards if n_shards else replicas))


def place(
    sizes: Mapping[str, int], nodes: Mapping[str, str], replicas: int, before: Placement | None = None
) -> dict[str, tuple[str, ...]]:
    """Workers for every shard.

    Parameters
    ----------
    sizes : dict
        Bytes by shard.
    nodes : dict
        By worker, the node that it runs on: the workers there are.
    replicas : int
        How many workers should hold each shard; fewer do where there are not as many.
    before : dict, optional
        The placement so far. Workers that are gone may be in it, and shards that are not wanted any more.
    """
    if not nodes:
        return dict.fromkeys(sizes, ())
    board = _Board(sizes, nodes, n_copies(len(sizes), len(nodes), replicas))
    for shard, workers in (before or {}).items():
        if shard in sizes:
            board.keep(shard, [worker for worker in workers if worker in nodes])
    for shard in sorted(sizes, key=lambda shard: (-sizes[shard], shard)):
        board.fill(shard)
    board.even_out()
    return {shard: tuple(board.holders[shard]) for shard in sizes}


def moved_bytes(before: Placement, after: Placement, sizes: Mapping[str, int]) -> int:
    """How many bytes workers have to fetch that did not hold them before."""
    return sum(
        size * len(set(after.get(shard, ())) - set(before.get(shard, ()))) for shard, size in sizes.items()
    )


def held_by(placement: Placement, worker: str) -> tuple[str, ...]:
    """The shards of one worker."""
    return tuple(shard for shard, workers in placement.items() if worker in workers)


class _Board:
    """A placement in the making."""

    def __init__(self, sizes: Mapping[str, int], nodes: Mapping[str, str], copies: int) -> None:
        self.sizes, self.nodes, self.copies = sizes, nodes, copies
        self.holders: dict[str, list[str]] = {shard: [] for shard in sizes}
        self.load = dict.fromkeys(nodes, 0)
        self.n_nodes = len(set(nodes.values()))

    def keep(self, shard: str, workers: Sequence[str]) -> None:
        """Leave a shard where it is, as far as it belongs there: two copies on one node are one too many."""
        for worker in workers[: self.copies]:
            if self._fits(shard, worker):
                self._add(shard, worker)

    def fill(self, shard: str) -> None:
        """Find workers for the copies that a shard lacks: those with the fewest bytes."""
        while len(self.holders[shard]) < self.copies:
            free = [worker for worker in self.nodes if worker not in self.holders[shard]]
            apart = [worker for worker in free if self._fits(shard, worker)]
            self._add(shard, min(apart or free, key=lambda worker: (self.load[worker], worker)))

    def even_out(self) -> None:
        """Move single shards from full workers to empty ones while that makes them more alike."""
        for _ in range(len(self.sizes) * self.copies):
            move = self._best_move()
            if move is None:
                return
            shard, source, target = move
            self.holders[shard].remove(source)
            self.load[source] -= self.sizes[shard]
            self._add(shard, target)

    def _best_move(self) -> tuple[str, str, str] | None:
        mean = sum(self.load.values()) / len(self.load)
        ranked = sorted(self.load, key=lambda worker: (self.load[worker], worker))
        if max(self.load[ranked[-1]] - mean, mean - self.load[ranked[0]]) <= mean * _EVEN_ENOUGH:
            return None
        for source in reversed(ranked):
            for target in ranked if self.load[source] > mean else ():
                gap = self.load[source] - self.load[target]
                movable = [shard for shard in self.holders if self._is_movable(shard, source, target, gap)]
                if movable:
                    return min(movable, key=lambda shard: abs(self.sizes[shard] - gap / 2)), source, target
        return None

    def _is_movable(self, shard: str, source: str, target: str, gap: int) -> bool:
        held = self.holders[shard]
        is_smoother = 0 < self.sizes[shard] < gap
        return source in held and target not in held and is_smoother and self._fits(shard, target, source)

    def _fits(self, shard: str, worker: str, leaving: str | None = None) -> bool:
        """Whether no more copies than must be would share the worker's node."""
        there = [self.nodes[each] for each in self.holders[shard] if each != leaving]
        most = -(-self.copies // self.n_nodes)
        return there.count(self.nodes[worker]) < most

    def _add(self, shard: str, worker: str) -> None:
        self.holders[shard].append(worker)
        self.load[worker] += self.sizes[shard]
