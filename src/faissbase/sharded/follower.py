"""A dataset that follows a collection in a folder, from moment to moment, each proven before the next.

The first moment is compared record by record. Of a later one only what was written since needs to be: the
moment before is held open, so that what has been replaced or deleted can still be named.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import numpy as np

from faissbase.collection import answers
from faissbase.collection.answers import Moment
from faissbase.collection.frozen import FrozenCollection
from faissbase.collection.inputs import Rows
from faissbase.errors import ConflictError
from faissbase.sharded.carrying import ROW_BYTES, Note, differing, joined, pieces, remove_others
from faissbase.sharded.collection import ShardedCollection
from faissbase.storage.records import State
from faissbase.types import Slots

_SHARD_BYTES = 256 << 20
_TRIES = 5  # what was carried is compared again, and the second time nothing should differ


class Follower:
    """Has ``target`` hold what ``source`` does; use it with ``with``.

    Attributes
    ----------
    n_passes : int
        Times that records were compared.
    n_carried : int
    n_records : int
        Of the moment that ``target`` holds.
    """

    def __init__(self, source: FrozenCollection, target: ShardedCollection, note: Note) -> None:
        self._source = source
        self._target = target
        self._note = note
        self._held = ExitStack()
        self._moment: Moment | None = None
        self.n_passes = 0
        self.n_carried = 0
        self.n_records = 0

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def n_behind(self, state: State) -> int | None:
        """How many slots were filled or buried since; None where all have to be looked at."""
        if self._moment is None or self._moment.snapshot.state.generation != state.generation:
            return None
        before = self._moment.snapshot.state
        return state.next_slot - before.next_slot + state.last_seq - before.last_seq

    def catch_up(self) -> int:
        """Have the target hold the newest moment, to the bit; how many records were carried or removed.

        Raises
        ------
        ConflictError
            The slots were numbered anew meanwhile, or what was carried did not arrive: call it again.
        """
        with ExitStack() as opened:
            moment = opened.enter_context(self._source.moment())
            before, self._moment = self._moment, None  # a moment that is not proven is none to go on from
            n_changed = self._proven(moment, before)
            self._held.close()
            self._held = opened.pop_all()
            self._moment, self.n_records = moment, moment.snapshot.n_alive
        return n_changed

    def _proven(self, moment: Moment, before: Moment | None) -> int:
        """Carry over what differs and compare again, until nothing does; how many records that were."""
        state = moment.snapshot.state
        is_next = before is not None and before.snapshot.state.generation == state.generation
        slots, gone = _news(moment, before) if before is not None and is_next else (_every(moment), None)
        n_changed = self._target.delete(gone) if gone else 0
        for _ in range(_TRIES):
            n = self._carry(moment, slots)
            if gone is None and self._target.ntotal != moment.snapshot.n_alive:
                n += remove_others(self._target, lambda ids: answers.slots_of(moment, ids))
            n_changed += n
            self.n_carried += n
            if not n and self._target.ntotal == moment.snapshot.n_alive:
                return n_changed
        raise ConflictError(
            f"collection {self._source.name!r}: what was carried over differs again and again"
        )

    def _carry(self, moment: Moment, slots: Slots) -> int:
        """Carry those records in ``slots`` that differ; how many."""
        self.n_passes += 1
        dimension, n_changed = moment.snapshot.view.d, 0
        waiting: list[Rows] = []
        for start, stop in pieces(len(slots), dimension):
            rows = answers.stored(moment, slots[start:stop])
            found = differing(rows, self._target.get(rows.ids, include_vectors=True))
            if len(found):
                waiting.append(found)
                n_changed += len(found)
            if sum(map(len, waiting)) * (4 * dimension + ROW_BYTES) >= _SHARD_BYTES or stop == len(slots):
                together = joined(waiting)
                if together is not None:
                    self._target.put_stored(together)
                waiting = []
            self._note("records", stop, len(slots))
        return n_changed


def _every(moment: Moment) -> Slots:
    alive = moment.snapshot.alive
    return np.arange(moment.snapshot.view.n) if alive is None else np.flatnonzero(alive)


def _news(moment: Moment, before: Moment) -> tuple[Slots, list[str]]:
    """The slots that were filled since a moment, and the ids that had a record then and have none now."""
    assert moment.transaction is not None
    assert before.transaction is not None
    then, every = before.snapshot.state, _every(moment)
    buried = np.sort(moment.transaction.buried_since(then.last_seq))
    old = buried[buried < then.next_slot]
    ids = [row.id for row in before.transaction.rows(old).values()]
    there = answers.slots_of(moment, ids)
    return every[every >= then.next_slot], [id for id in ids if id not in there]
