"""``records.sqlite``: states and slots, transactions, versions across connections, text."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from faissbase.errors import ConflictError, CorruptionError, NotFoundError
from faissbase.storage.records import (
    FILE_NAME,
    Records,
    State,
    StoredRow,
    WriteTransaction,
    create_file,
    match_expression,
    read_meta,
)
from faissbase.storage.sqlite import PAGE_BYTES
from faissbase.types import Row

META = {"uuid": "u", "name": "docs", "dimension": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_file(tmp_path, META)
    return tmp_path


@pytest.fixture
def records(folder: Path) -> Iterator[Records]:
    opened = Records(folder, synchronous="FULL")
    yield opened
    opened.close()


def _row(slot: int, document: str | None = None) -> tuple[int, str, int, float, bytes, str | None]:
    return slot, f"id{slot}", -slot, 1.0, b'{"slot":%d}' % slot, document


def _insert(transaction: WriteTransaction, slots: Sequence[int], document: str | None = None) -> None:
    transaction.insert(_row(slot, document) for slot in slots)
    if document is not None:
        transaction.index_documents((slot, document) for slot in slots)


def _commit(records: Records, slots: Sequence[int], document: str | None = None) -> None:
    with records.write_transaction() as transaction:
        _insert(transaction, slots, document)


def _bury(records: Records, slots: Sequence[int]) -> None:
    with records.write_transaction() as transaction:
        transaction.bury(slots, transaction.state().next_slot)


def _state(records: Records) -> State:
    with records.read_transaction() as transaction:
        return transaction.state()


def _found(records: Records, text: str) -> list[int]:
    with records.read_transaction() as transaction:
        return [slot for slot, _ in transaction.text_ranking(text)]


# ---- states and slots ----------------------------------------------------------------------------


def test_a_new_file_is_empty_and_knows_its_facts(folder: Path, records: Records) -> None:
    assert _state(records) == State(generation=0, next_slot=0, last_seq=0, is_deleted=False)
    assert read_meta(folder) == {"generation": 0, **META}


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Records(tmp_path, synchronous="FULL")
    with pytest.raises(NotFoundError):
        read_meta(tmp_path)


def test_the_next_slot_follows_the_newest_row(records: Records) -> None:
    _commit(records, [0, 1, 5])
    assert _state(records).next_slot == 6


def test_slots_of_deleted_rows_are_never_given_again(folder: Path, records: Records) -> None:
    _commit(records, range(10))
    _bury(records, [7, 8, 9])
    assert _state(records).next_slot == 10
    _bury(records, range(7))
    assert _state(records).next_slot == 10
    records.close()
    reopened = Records(folder, synchronous="FULL")
    assert _state(reopened).next_slot == 10
    _commit(reopened, [10])
    _bury(reopened, [10])
    assert _state(reopened).next_slot == 11
    reopened.close()


def test_tombstones_come_in_the_order_in_which_they_were_made(records: Records) -> None:
    _commit(records, range(10))
    _bury(records, [4, 2])
    first = _state(records).last_seq
    _bury(records, [9, 3, 5])
    with records.read_transaction() as transaction:
        assert transaction.buried_since(0).tolist() == [4, 2, 9, 3, 5]
        assert transaction.buried_since(first).tolist() == [9, 3, 5]
        assert transaction.buried_since(_state(records).last_seq).tolist() == []
        assert transaction.buried_since(0).dtype == np.int64


def test_news_are_the_state_and_what_was_buried_since(records: Records) -> None:
    with records.write_transaction() as transaction:
        transaction.insert([(slot, f"r{slot}", 0, 1.0, b"{}", None) for slot in range(5)])
        transaction.bury([3], 5)
    with records.write_transaction() as transaction:
        transaction.bury([1, 4], 5)
    with records.read_transaction() as transaction:
        state = transaction.state()
    for seq, buried in ((0, [3, 1, 4]), (1, [1, 4]), (3, [])):
        found, slots = records.news(seq)
        assert found == state
        assert slots.tolist() == buried
        assert slots.dtype == np.int64


def test_a_reset_leaves_nothing(records: Records) -> None:
    _commit(records, range(5), "some words")
    _bury(records, [1])
    with records.write_transaction() as transaction:
        transaction.insert_redo([(0, b"x")])
        transaction.insert_blocks([(0, 1)])
        transaction.set_progress("file", 3)
        transaction.clear()
        transaction.set_meta("generation", 1)
    assert _state(records) == State(generation=1, next_slot=0, last_seq=0, is_deleted=False)
    assert _found(records, "words") == []
    with records.read_transaction() as transaction:
        assert transaction.redo_rows() == []
        assert transaction.block_checksums() == []
        assert transaction.rows_done("file") == 0
        assert transaction.integrity_problems() == []


def test_renumbering_moves_rows_and_their_texts_together(records: Records) -> None:
    _commit(records, range(6), "first")
    _commit(records, [6], "second")
    _bury(records, [0, 2, 3])
    with records.write_transaction() as transaction:
        transaction.renumber(np.array([1, 4, 5, 6]))
    with records.read_transaction() as transaction:
        assert transaction.slots_of(["id1", "id4", "id5", "id6"]) == {"id1": 0, "id4": 1, "id5": 2, "id6": 3}
        assert transaction.buried_since(0).tolist() == []
    assert _found(records, "second") == [3]
    assert sorted(_found(records, "first")) == [0, 1, 2]


# ---- reading -------------------------------------------------------------------------------------


def test_rows_come_back_as_they_were_stored(records: Records) -> None:
    with records.write_transaction() as transaction:
        transaction.insert([(3, "ä'\"\n", -(1 << 63), 2.5, b'{"\xc3\xbc":1}', "text"), _row(7)])
    with records.read_transaction() as transaction:
        wanted = StoredRow(3, "ä'\"\n", -(1 << 63), 2.5, b'{"\xc3\xbc":1}', "text")
        assert transaction.stored_rows([7, 3, 99]) == [wanted, StoredRow(*_row(7))]
        assert transaction.rows(np.array([3])) == {3: Row("ä'\"\n", b'{"\xc3\xbc":1}', "text")}
        assert list(transaction.stored_range(4, 8)) == [StoredRow(*_row(7))]
        assert list(transaction.metadata_of(0, 7)) == [(3, b'{"\xc3\xbc":1}')]
        assert transaction.rows([]) == {}


@pytest.mark.parametrize("n", [0, 1, 2, 40_000])
def test_slots_are_found_for_any_number_of_ids(records: Records, n: int) -> None:
    _commit(records, range(n))
    wanted = {f"id{slot}": slot for slot in range(n)}
    with records.read_transaction() as transaction:
        assert transaction.slots_of([*wanted, "unknown"]) == wanted


def test_rows_that_have_gone_are_a_conflict(records: Records) -> None:
    _commit(records, range(3))
    assert records.rows([0, 2], generation=0) == {
        slot: Row(f"id{slot}", b'{"slot":%d}' % slot, None) for slot in (0, 2)
    }
    _bury(records, [2])
    with pytest.raises(ConflictError):
        records.rows([0, 2], generation=0)
    with pytest.raises(ConflictError):
        records.rows([0], generation=1)
    assert records.rows([], generation=0) == {}


def test_a_read_transaction_sees_one_moment(records: Records) -> None:
    _commit(records, range(3))
    with records.read_transaction() as transaction:
        before = transaction.state()
        _commit(records, [3])
        _bury(records, [0])
        assert transaction.state() == before
        assert len(transaction.rows(range(4))) == 3
    assert _state(records).next_slot == 4


def test_reads_may_be_left_unfinished(records: Records) -> None:
    _commit(records, range(100), "word")
    for _ in range(10):
        with records.read_transaction() as transaction:
            assert next(transaction.text_ranking("word"))[0] == 0
            assert next(transaction.stored_range(0, 100)).slot == 0


# ---- versions ------------------------------------------------------------------------------------


def test_the_version_differs_after_every_commit_of_anyone(folder: Path, records: Records) -> None:
    other = Records(folder, synchronous="FULL")
    seen = [records.version()]
    assert records.version() == seen[0]
    for slot, writer in enumerate((records, other, other, records)):
        _commit(writer, [slot])
        assert records.version() not in seen
        seen.append(records.version())
    _state(other)
    assert records.version() == seen[-1]
    other.close()


def test_the_version_stays_when_a_change_is_undone(records: Records) -> None:
    before = records.version()
    with pytest.raises(ZeroDivisionError):
        _fail_after_inserting(records, ZeroDivisionError())
    assert records.version() == before


def test_other_connections_see_a_commit_at_once(folder: Path, records: Records) -> None:
    other = Records(folder, synchronous="FULL")
    for slot in range(5):
        _commit(records, [slot])
        assert _state(other).next_slot == slot + 1
    other.close()


# ---- transactions --------------------------------------------------------------------------------


def _fail_after_inserting(records: Records, error: Exception) -> None:
    with records.write_transaction() as transaction:
        _insert(transaction, [90, 91], "lost")
        raise error


def test_what_fails_is_undone_whole(records: Records) -> None:
    _commit(records, [0], "kept")
    with pytest.raises(KeyError):
        _fail_after_inserting(records, KeyError("x"))
    assert _state(records).next_slot == 1
    assert _found(records, "lost") == []
    _commit(records, [1], "lost")
    assert _found(records, "lost") == [1]


def test_a_transaction_sees_its_own_changes_and_nobody_else_does(records: Records) -> None:
    with records.write_transaction() as transaction:
        _insert(transaction, [0])
        assert transaction.state().next_slot == 1
        assert _state(records).next_slot == 0


def test_an_id_is_stored_once(records: Records) -> None:
    _commit(records, [0])
    with pytest.raises(CorruptionError, match="UNIQUE"):
        _commit(records, [1, 0])
    assert _state(records).next_slot == 1
    _commit(records, [1])


def test_a_thread_that_writes_waits_for_the_one_before(records: Records) -> None:
    entered = threading.Event()

    def write() -> None:
        with records.write_transaction() as transaction:
            entered.set()
            _insert(transaction, [1])

    second = threading.Thread(target=write)
    with records.write_transaction() as transaction:
        second.start()
        assert not entered.wait(0.05)
        _insert(transaction, [0])
    second.join()
    assert entered.is_set()
    assert _state(records).next_slot == 2


def test_touching_leaves_something_to_commit(records: Records) -> None:
    before = records.version()
    for _ in range(3):
        with records.write_transaction() as transaction:
            transaction.touch()
        assert records.version() != before
        before = records.version()
    assert _state(records) == State(0, 0, 0, False)


def test_closing_empties_the_log(folder: Path) -> None:
    records = Records(folder, synchronous="FULL")
    _commit(records, range(5))
    _state(records)
    assert (folder / f"{FILE_NAME}-wal").stat().st_size > 0
    assert records.size_bytes() > (folder / FILE_NAME).stat().st_size
    records.close()
    assert sorted(path.name for path in folder.iterdir()) == ["commits", FILE_NAME]


def test_how_far_a_load_came_is_remembered(records: Records) -> None:
    with records.write_transaction() as transaction:
        transaction.set_progress("a", 10)
        transaction.set_progress("a", 20)
        transaction.set_progress("b", 5)
    with records.write_transaction() as transaction:
        transaction.set_progress("b", 0)
    with records.read_transaction() as transaction:
        assert (transaction.rows_done("a"), transaction.rows_done("b"), transaction.rows_done("c")) == (
            20,
            0,
            0,
        )


def test_redo_copies_are_kept_until_cleared(records: Records) -> None:
    with records.write_transaction() as transaction:
        transaction.insert_redo([(3, memoryview(b"abc")), (4, b"def")])
    with records.write_transaction() as transaction:
        assert transaction.redo_rows() == [(3, b"abc"), (4, b"def")]
        transaction.clear_redo()
    with records.read_transaction() as transaction:
        assert transaction.redo_rows() == []


def test_damage_met_while_reading_is_told_and_reading_goes_on_elsewhere(folder: Path) -> None:
    records = Records(folder, synchronous="FULL")
    _commit(records, range(500))
    records.close()
    path = folder / FILE_NAME
    data = bytearray(path.read_bytes())
    at = data.index(b'{"slot":250}')
    data[at] ^= 1
    path.write_bytes(data)
    records = Records(folder, synchronous="FULL")
    for _ in range(2):
        with pytest.raises(CorruptionError, match=r"records\.sqlite"):
            _all_rows(records)
    with records.read_transaction() as transaction:
        assert transaction.rows([0]).keys() == {0}
    records.close()
    assert at >= PAGE_BYTES


def _all_rows(records: Records) -> list[StoredRow]:
    with records.read_transaction() as transaction:
        return list(transaction.stored_range(0, 500))


# ---- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("red fox", '"red" OR "fox"'),
        ("", ""),
        ("  \n\t", ""),
        ('?!*"()-', ""),
        ('say "red" AND NOT fox*', '"say" OR "red" OR "AND" OR "NOT" OR "fox"'),
        ("document:fox NEAR(a, 2)", '"document" OR "fox" OR "NEAR" OR "a" OR "2"'),
        ("größe_1", '"größe_1"'),
        ("日本 語", '"日本" OR "語" OR "日 本"'),
        ("FAISS向量库", '"FAISS向量库" OR "FAISS" OR "向 量" OR "量 库"'),
    ],
)
def test_any_text_is_a_search_for_its_words(text: str, expression: str) -> None:
    assert match_expression(text) == expression


@pytest.mark.parametrize(
    "text",
    [
        '"', '""', "'", "* fox", "fox*", "^fox", "NEAR(fox", "AND", "OR OR", "NOT", "-fox", "fox AND",
        "document : fox", "{document} : fox", "fox + red", "(", "fox)", "\x00fox\x00", "fox\ud7ff", "😀 fox",
        "\u0301 fox", "fox;DROP TABLE records", "%_", "\\", "fox" * 10_000, "fox " * 1_000, "_",
    ],
)  # fmt: skip
def test_hostile_text_is_searched_and_never_an_error(records: Records, text: str) -> None:
    _commit(records, [0], "a red fox")
    with records.read_transaction() as transaction:
        found = [slot for slot, _ in transaction.text_ranking(text)]
    assert found in ([], [0])
    has_fox = "fox" in match_expression(text).replace('"', " ").split()
    assert found == [0] or not has_fox


@pytest.mark.parametrize(
    ("document", "text", "other"),
    [
        ("向量数据库支持全文搜索", "数据库", "数学"),
        ("ベクトルデータベースは速い", "データ", "デパート"),
        ("東京タワーへ行きました", "東", "西"),
        ("서울에서 부산까지", "서울", "대구"),
        ("ฐานข้อมูลเวกเตอร์", "ข้อมูล", "ช้าง"),
        ("ມື້ນີ້ອາກາດດີ", "ອາກາດ", "ຫມາ"),
        ("ទិន្នន័យវ៉ិចទ័រ", "ទិន្នន័យ", "ឆ្កែ"),
        ("FAISSは検索ライブラリ", "faiss", "chroma"),
    ],
)
def test_a_word_is_found_within_a_text_without_spaces(
    records: Records, document: str, text: str, other: str
) -> None:
    _commit(records, [0], document)
    _commit(records, [1], "a red fox")
    for _ in range(2):
        with records.read_transaction() as transaction:
            assert [slot for slot, _ in transaction.text_ranking(text)] == [0]
            assert [slot for slot, _ in transaction.text_ranking(document)] == [0]
            assert list(transaction.text_ranking(other)) == []
        with records.write_transaction() as transaction:
            transaction.reindex_documents()


def test_an_index_of_whole_runs_of_signs_is_searched_too(records: Records) -> None:
    _commit(records, [0], "向量数据库")
    with records.write_transaction() as transaction:
        transaction._all("INSERT INTO documents(documents) VALUES('delete-all')")
        transaction._all("INSERT INTO documents(rowid, document) VALUES(0, '向量数据库')")
    with records.read_transaction() as transaction:
        assert [slot for slot, _ in transaction.text_ranking("向量数据库")] == [0]


def test_any_word_matches_and_more_of_them_rank_higher(records: Records) -> None:
    for slot, document in enumerate(["a red fox", "red red", "blue", "the fox and the red hen", ""]):
        _commit(records, [slot], document)
    with records.read_transaction() as transaction:
        ranking = list(transaction.text_ranking("red fox"))
    assert {slot for slot, _ in ranking} == {0, 1, 3}
    assert ranking[0][0] == 0
    assert [score for _, score in ranking] == sorted((score for _, score in ranking), reverse=True)


def test_case_and_accents_do_not_matter(records: Records) -> None:
    _commit(records, [0], "Élan Ångström")
    for text in ("elan", "ÉLAN", "angstrom", "ÅNGSTRÖM"):
        assert _found(records, text) == [0]


def test_buried_rows_are_found_no_more(records: Records) -> None:
    _commit(records, [0, 1], "fox")
    _commit(records, [2])
    _bury(records, [0, 2])
    assert _found(records, "fox") == [1]


def test_the_text_index_can_be_made_anew(records: Records) -> None:
    with records.write_transaction() as transaction:
        transaction.insert([_row(0, "fox"), _row(1)])
        transaction.index_documents([(5, "fox")])
        assert transaction.document_slots() == ({0}, {5})
        transaction.reindex_documents()
        assert transaction.document_slots() == ({0}, {0})
    assert _found(records, "fox") == [0]


def test_a_copy_holds_the_same_moment(records: Records, tmp_path: Path) -> None:
    _commit(records, range(3), "fox")
    (tmp_path / "copy").mkdir()
    records.copy_to(tmp_path / "copy" / FILE_NAME)
    _commit(records, [3])
    copied = Records(tmp_path / "copy", synchronous="FULL")
    assert _state(copied).next_slot == 3
    assert sorted(_found(copied, "fox")) == [0, 1, 2]
    _commit(copied, [3])
    copied.close()
