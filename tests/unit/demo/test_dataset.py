"""The demo data: complete, small, and its stored answers agree with a fresh exact search."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from faissbase.demo import dataset
from faissbase.demo.dataset import DemoDataset, demo_shape, iter_batches, load_demo, load_queries
from faissbase.errors import CorruptionError, InvalidInputError

SIZE_LIMIT_BYTES = 15_000_000
QUERIES_CHECKED = range(0, 500, 25)
FILTER_NAMES = (
    "section_python",
    "small",
    "big_libs",
    "selective",
    "weak",
    "tag_program",
    "tag_or",
    "essential",
    "none",
    "own_section",
)
METADATA_FIELDS = {
    "source",
    "version",
    "section",
    "priority",
    "architecture",
    "maintainer",
    "installed_size",
    "deb_size",
    "essential",
    "tags",
    "homepage",
    "summary",
}


@pytest.fixture(scope="module")
def demo() -> DemoDataset:
    return load_demo()


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    rows = vectors.astype(np.float64)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / lengths


@pytest.fixture(scope="module")
def cosines(demo: DemoDataset) -> dict[int, npt.NDArray[np.float64]]:
    xb = unit(demo.vectors)
    return {query: xb @ unit(demo.query_vectors[query]) for query in QUERIES_CHECKED}


def passes_by_hand(metadata: dict[str, Any], query_section: str) -> dict[str, bool]:
    """The filters written out, so that the stored ``where`` is not what judges itself."""
    section, size, tags = metadata["section"], metadata["installed_size"], metadata["tags"]
    is_library = section in ("libs", "libdevel")
    is_command = "interface::commandline" in tags and section != "games"
    return {
        "section_python": section == "python",
        "small": size < 100,
        "big_libs": is_library and size >= 1000,
        "selective": section == "database" and size >= 1000,
        "weak": not is_library,
        "tag_program": "role::program" in tags,
        "tag_or": is_command or metadata["essential"],
        "essential": metadata["essential"],
        "none": size < 0,
        "own_section": section == query_section,
    }


def passes(where: dict[str, Any], metadata: dict[str, Any]) -> bool:
    return all(condition_holds(key, value, metadata) for key, value in where.items())


def condition_holds(key: str, value: Any, metadata: dict[str, Any]) -> bool:
    if key == "$and":
        return all(passes(part, metadata) for part in value)
    if key == "$or":
        return any(passes(part, metadata) for part in value)
    if key == "$not":
        return not passes(value, metadata)
    field = metadata[key]
    if not isinstance(value, dict):
        return bool(field == value)
    checks: dict[str, Callable[[Any], bool]] = {
        "$lt": lambda operand: field < operand,
        "$gte": lambda operand: field >= operand,
        "$in": lambda operand: field in operand,
        "$nin": lambda operand: field not in operand,
        "$contains": lambda operand: operand in field,
    }
    return all(checks[name](operand) for name, operand in value.items())


def assert_nearest(
    rows: npt.NDArray[np.int32], cosines: npt.NDArray[np.float64], passing: npt.NDArray[np.int64]
) -> None:
    """``rows`` are the nearest of ``passing``; cosines closer than 1e-12 may change places."""
    count = min(len(rows), len(passing))
    assert set(rows[:count].tolist()) <= set(passing.tolist())
    assert len(set(rows[:count].tolist())) == count
    assert (rows[count:] == -1).all()
    expected = np.sort(cosines[passing])[::-1][:count]
    np.testing.assert_allclose(cosines[rows[:count]], expected, rtol=0, atol=1e-12)


def test_counts_and_shapes(demo: DemoDataset) -> None:
    n, d = demo_shape()
    assert n >= 22_000
    assert len(demo.ids) == len(demo.metadatas) == len(demo.documents) == n
    assert demo.vectors.shape == (n, d)
    assert demo.vectors.dtype == np.float32
    assert demo.vectors.flags.c_contiguous
    assert demo.query_vectors.shape == (500, d)
    assert demo.query_vectors.dtype == np.float32
    assert len(demo.query_texts) == len(demo.query_sections) == 500


def test_truth_has_a_row_for_every_query(demo: DemoDataset) -> None:
    assert demo.truth_ids.shape == demo.truth_scores.shape == (500, 20)
    assert demo.truth_ids.dtype == np.int32
    assert demo.truth_scores.dtype == np.float32
    assert demo.filter_truth.keys() == demo.filters.keys() == set(FILTER_NAMES)
    assert all(rows.shape == (500, 10) and rows.dtype == np.int32 for rows in demo.filter_truth.values())


def test_vectors_have_unit_length(demo: DemoDataset) -> None:
    np.testing.assert_allclose(np.linalg.norm(demo.vectors, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(demo.query_vectors, axis=1), 1.0, atol=1e-3)


def test_ids_are_unique_and_vectors_too(demo: DemoDataset) -> None:
    assert len(set(demo.ids)) == len(demo.ids)
    assert len({row.tobytes() for row in demo.vectors}) == len(demo.ids)


def test_every_record_has_the_documented_metadata_and_a_document(demo: DemoDataset) -> None:
    assert all(metadata.keys() == METADATA_FIELDS for metadata in demo.metadatas)
    assert all(0 < len(document) <= 600 for document in demo.documents)


def test_files_stay_small() -> None:
    folder = files("faissbase.demo") / "data"
    size_bytes = sum(len(item.read_bytes()) for item in folder.iterdir())
    assert size_bytes <= SIZE_LIMIT_BYTES


@pytest.mark.parametrize("query", QUERIES_CHECKED)
def test_truth_agrees_with_a_fresh_search(
    demo: DemoDataset, cosines: dict[int, npt.NDArray[np.float64]], query: int
) -> None:
    rows = demo.truth_ids[query]
    assert_nearest(rows, cosines[query], np.arange(len(demo.ids)))
    np.testing.assert_allclose(demo.truth_scores[query], cosines[query][rows], rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", FILTER_NAMES)
def test_filter_truth_agrees_with_plain_python(
    demo: DemoDataset, cosines: dict[int, npt.NDArray[np.float64]], name: str
) -> None:
    where, by_hand = {"not": "yet"}, [False]
    for query in QUERIES_CHECKED[::7]:
        if where != demo.where_for(name, query):  # one of them differs from query to query
            where, section = demo.where_for(name, query), demo.query_sections[query]
            by_hand = [passes_by_hand(metadata, section)[name] for metadata in demo.metadatas]
            assert [passes(where, metadata) for metadata in demo.metadatas] == by_hand
        assert_nearest(demo.filter_truth[name][query], cosines[query], np.flatnonzero(by_hand))


def test_queries_load_without_the_records(demo: DemoDataset) -> None:
    queries = load_queries()
    assert queries.query_texts == demo.query_texts
    np.testing.assert_array_equal(queries.query_vectors, demo.query_vectors)
    np.testing.assert_array_equal(queries.truth_ids, demo.truth_ids)


def test_own_section_is_filled_in(demo: DemoDataset) -> None:
    assert demo.where_for("own_section", 3) == {"section": demo.query_sections[3]}
    assert demo.where_for("small", 3) == {"installed_size": {"$lt": 100}}


def test_filters_match_nothing_few_and_many(demo: DemoDataset) -> None:
    assert (demo.filter_truth["none"] == -1).all()
    assert sum(metadata["essential"] for metadata in demo.metadatas) == 14
    assert (demo.filter_truth["weak"] >= 0).all()


def test_questions_find_what_they_show(demo: DemoDataset) -> None:
    assert len(demo.questions) == 6
    assert sum(question.where is None for question in demo.questions) == 2
    xb = unit(demo.vectors)
    found = []
    for question in demo.questions:
        where = question.where or {}
        passing = np.flatnonzero([passes(where, metadata) for metadata in demo.metadatas])
        order = np.argsort(-(xb[passing] @ unit(demo.query_vectors[question.query])))
        found.append([demo.ids[row] for row in passing[order[:3]]])
    assert found == [
        ["xmahjongg", "kajongg", "mah-jong"],
        ["pngphoon", "gkrellmoon", "xphoon"],
        ["python3-configobj", "python3-iniparse", "python3-confget"],
        ["exif", "exifprobe", "exiftags"],
        ["fraqtive", "fractalnow", "qosmic"],
        ["libnet-ip-perl", "python3-ipy", "libnet-ipv6addr-perl"],
    ]


def test_batches_hold_the_same_records(demo: DemoDataset) -> None:
    batches = list(iter_batches(10_000))
    assert [len(batch.vectors) for batch in batches] == [10_000, 10_000, 10_000, 10_000, 2_000]
    np.testing.assert_array_equal(np.concatenate([batch.vectors for batch in batches]), demo.vectors)
    assert [id for batch in batches for id in batch.ids or []] == demo.ids
    assert [metadata for batch in batches for metadata in batch.metadatas or []] == demo.metadatas
    assert [document for batch in batches for document in batch.documents or []] == demo.documents


def test_batch_rows_below_one_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="got 0"):
        iter_batches(0)


@pytest.mark.parametrize(
    "name",
    [
        dataset.VECTORS_FILE,
        dataset.RECORDS_FILE,
        dataset.QUERY_VECTORS_FILE,
        dataset.QUERIES_FILE,
        dataset.TRUTH_FILE,
    ],
)
def test_a_flipped_bit_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(wanted: str) -> bytes:
        content = bytearray(intact(wanted))
        if wanted == name:
            content[len(content) // 2] ^= 0x10
        return bytes(content)

    intact = dataset._file_bytes
    monkeypatch.setattr(dataset, "_file_bytes", damaged)
    with pytest.raises(CorruptionError, match=name):
        load_demo()


def test_an_unknown_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "FORMAT", 2)
    with pytest.raises(CorruptionError, match="expected format 2, got 1"):
        demo_shape()
