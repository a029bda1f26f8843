"""The counter of commits: two openings of one folder, as two processes have them."""

from __future__ import annotations

from pathlib import Path

from faissbase.storage.commits import FILE_NAME, CommitCounter


def test_a_commit_is_told_to_all_who_share_the_folder(tmp_path: Path) -> None:
    writer, reader = CommitCounter(tmp_path), CommitCounter(tmp_path)
    before = reader.settled()
    writer.finish(writer.begin())
    after = reader.settled()
    assert None not in (before, after)
    assert before != after
    assert after == writer.settled()


def test_nothing_is_settled_while_a_commit_is_under_way_or_its_writer_died(tmp_path: Path) -> None:
    writer, reader = CommitCounter(tmp_path), CommitCounter(tmp_path)
    writer.begin()
    assert reader.settled() is None
    assert CommitCounter(tmp_path).settled() is None
    writer.finish(writer.begin())
    assert reader.settled() is not None


def test_a_writer_that_finishes_late_does_not_hide_the_next_commit(tmp_path: Path) -> None:
    first, second, reader = (CommitCounter(tmp_path) for _ in range(3))
    late = first.begin()
    next_one = second.begin()
    first.finish(late)
    assert reader.settled() is None
    second.finish(next_one)
    settled = reader.settled()
    first.finish(late)
    assert reader.settled() == settled == next_one


def test_where_there_can_be_no_counter_nothing_is_settled(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    counter = CommitCounter(tmp_path)
    counter.finish(counter.begin())
    assert counter.settled() is None
