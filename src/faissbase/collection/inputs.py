"""What callers hand in, checked whole before anything is touched, and brought into stored form.

Knows arrays, ids and JSON: no storage, no search. The caller's arrays are never changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from secrets import token_hex
from typing import Any

import numpy as np
import orjson

from faissbase.errors import InvalidInputError
from faissbase.filters.values import plain_date, shown
from faissbase.storage.checksums import row_checksums
from faissbase.types import Float32, Metric

MAX_ID_BYTES = 1024
MAX_METADATA_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 16 << 20
MAX_K = 1 << 20
MAX_HITS = 1 << 27
# Two vectors of this squared norm are at most 4 × as far apart, which float32 still holds.
_MAX_SQUARED_NORM = 8e37
_MIN_SQUARED_NORM = 1e-30  # below, float32 squares lose digits
_UNIT_TOLERANCE = 1e-6
_FLOAT32 = np.dtype(np.float32)
_TOGETHER = 128  # metadata objects encoded by one call, and looked at one by one if one may be wrong
_FEW = 4
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_MIN_NORMAL_FLOAT32 = float(np.finfo(np.float32).tiny)  # what is below has fewer digits


@dataclass(slots=True)  # frozen, it would take four times as long to make, at every write
class Rows:
    """Checked records in stored form. ``norms[i] * vectors[i]`` is the vector as it was given."""

    ids: list[str]
    vectors: Float32
    norms: list[float]
    metadata_json: list[bytes]
    documents: list[str | None]
    checksums: list[int]

    def __len__(self) -> int:
        return len(self.ids)


def rows_from_input(
    ids: Any, vectors: Any, metadatas: Any, documents: Any, dimension: int, metric: Metric
) -> Rows:
    """Check a batch and encode it.

    Raises
    ------
    InvalidInputError
        Names the row and the value that is wrong.
    """
    id_list = check_ids(ids)
    stored, norms = check_vectors(vectors, len(id_list), dimension, metric)
    metadata_json = encode_metadatas(metadatas, len(id_list))
    texts = check_documents(documents, len(id_list))
    checksums = row_checksums(id_list, metadata_json, texts, norms, stored)
    return Rows(id_list, stored, norms, metadata_json, texts, checksums)


def check_ids(ids: Any) -> list[str]:
    """``ids`` as a list of distinct, storable strings; one string is a list of one."""
    id_list = [ids] if isinstance(ids, str) else as_list(ids, "ids")
    if not _are_plain(id_list):
        _check_each_id(id_list)
    if len(set(id_list)) != len(id_list):
        seen: set[str] = set()
        repeated = next(id for id in id_list if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise InvalidInputError(f"id {repeated!r} is repeated within one call")
    return id_list


def _are_plain(id_list: list[Any]) -> bool:
    """Whether all are ASCII strings of a storable length: one look at them together, none at each."""
    if set(map(type, id_list)) != {str}:
        return False
    text = "".join(id_list)
    is_plain = text.isascii() and "\x00" not in text and all(id_list)
    return is_plain and len(max(id_list, key=len)) <= MAX_ID_BYTES


def _check_each_id(id_list: list[Any]) -> None:
    for position, id in enumerate(id_list):
        if not isinstance(id, str):
            wrong = f"{type(id).__name__} {id!r}"
            raise InvalidInputError(f"ids must be strings, got {wrong} at position {position}")
        if not id or "\x00" in id or len(id) > MAX_ID_BYTES or not _is_encodable(id):
            reason = f"must be 1 to {MAX_ID_BYTES} bytes of text without NUL"
            raise InvalidInputError(f"id {id[:80]!r} at position {position} {reason}")


def _is_encodable(text: str, limit: int = MAX_ID_BYTES) -> bool:
    try:
        return text.isascii() or len(text.encode()) <= limit
    except UnicodeEncodeError:
        return False


def as_list(values: Any, what: str) -> list[Any]:
    """A list from any sequence of values, Arrow and NumPy included."""
    if isinstance(values, list):
        return values
    for method in ("to_pylist", "tolist"):
        if hasattr(values, method):
            found = getattr(values, method)()
            return found if isinstance(found, list) else [found]
    if isinstance(values, Mapping | set | frozenset | bytes) or not hasattr(values, "__iter__"):
        raise InvalidInputError(f"{what} must be a list, got {type(values).__name__}")
    return list(values)


def as_matrix(vectors: Any, dimension: int) -> tuple[Float32, bool]:
    """``vectors`` as a C-contiguous ``float32[n, d]``, and whether it was one vector.

    Lists, NumPy arrays of any float or int type and strides, Arrow list arrays and torch tensors are taken.

    Raises
    ------
    InvalidInputError
        Not numbers, wrong d, or a value that is not finite in float32 (says which row).
    """
    matrix, given, is_single = _as_rows(vectors, dimension)
    with np.errstate(over="ignore", invalid="ignore"):
        # The sum of numbers is a number, unless it overflows: then the rows are looked at one by one.
        if not np.isfinite(matrix.sum()):
            _check_finite(matrix, given)
    return matrix, is_single


def _as_rows(vectors: Any, dimension: int) -> tuple[Float32, Any, bool]:
    """`as_matrix` of any numbers, and what they were made of."""
    array = _as_array(vectors)
    is_single = array.ndim == 1 and array.size > 0
    if array.ndim == 1:
        array = array.reshape(-1 if is_single else 0, dimension if not is_single else len(array))
    if array.ndim != 2:
        raise InvalidInputError(f"expected vectors of shape (n, {dimension}), got shape {array.shape}")
    if array.shape[1] != dimension:
        raise InvalidInputError(f"expected vectors of d={dimension}, got d={array.shape[1]}")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32), array, is_single


def _as_array(vectors: Any) -> Any:
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().cpu()
        vectors = vectors.numpy() if str(vectors.dtype) != "torch.bfloat16" else vectors.float().numpy()
    if hasattr(vectors, "to_pylist"):
        if not hasattr(vectors, "type"):
            raise InvalidInputError(f"vectors must be one column, got an Arrow {type(vectors).__name__}")
        return _from_arrow(vectors)
    if isinstance(vectors, np.ma.MaskedArray) and np.ma.is_masked(vectors):
        raise InvalidInputError("vectors hold masked values")
    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise InvalidInputError(f"vectors must all have the same length: {error}") from error
    if array.dtype.kind not in "fiu" and array.size:
        if array.ndim == 1 and all(isinstance(row, list | tuple | np.ndarray) for row in array):
            return _as_array(list(array))  # a column of pandas: an array of lists
        raise InvalidInputError(f"vectors must be numbers, got {_what_else(array)}")
    return array


def _what_else(array: Any) -> str:
    if array.ndim == 0:
        return f"{type(array.item()).__name__}: give a list or an array"
    if array.dtype != object:
        return f"dtype {array.dtype}"
    has_rows = array.ndim == 1 and any(isinstance(row, list | tuple | np.ndarray) for row in array)
    wanted = list | tuple | np.ndarray if has_rows else int | float | np.number
    for place, value in np.ndenumerate(array):
        if not isinstance(value, wanted) or isinstance(value, bool):
            return f"{str(value)[:80]!r} of type {type(value).__name__} in row {place[0]}"
    return "Python objects: give an array of float32, as .astype('float32') makes it"


def _from_arrow(vectors: Any) -> Any:
    """Numbers from an Arrow array of numbers (one vector) or of lists of numbers, without Python objects."""
    if hasattr(vectors, "combine_chunks"):
        vectors = vectors.combine_chunks()
    if not len(vectors):
        return np.zeros(0, np.float32)
    is_list = hasattr(vectors, "flatten") and hasattr(vectors.type, "value_type")
    flat = vectors.flatten() if is_list else vectors
    if vectors.null_count or flat.null_count:
        raise InvalidInputError("vectors hold nulls")
    if hasattr(flat.type, "value_type") or not hasattr(flat, "to_numpy"):
        raise InvalidInputError(f"vectors must be numbers or lists of numbers, got Arrow {vectors.type}")
    numbers = flat.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind not in "fiu":
        raise InvalidInputError(f"vectors must be numbers, got Arrow {vectors.type}")
    if not is_list:
        return numbers
    return numbers.reshape(len(vectors), _arrow_width(vectors, len(numbers)))


def _arrow_width(vectors: Any, n_numbers: int) -> int:
    width = n_numbers // len(vectors)
    if hasattr(vectors, "offsets"):
        lengths = vectors.value_lengths().to_numpy(zero_copy_only=False)
        if (lengths != width).any():
            raise InvalidInputError("vectors must all have the same length")
    return width


def _check_finite(matrix: Float32, given: Any) -> None:
    for row in np.flatnonzero(~np.isfinite(matrix.sum(axis=1))):
        bad = np.flatnonzero(~np.isfinite(matrix[row]))
        if len(bad):
            value = given[row, bad[0]]
            raise InvalidInputError(f"row {row} holds {value} at position {bad[0]}: not finite in float32")


def stored_form(vectors: Any, dimension: int, metric: Metric) -> tuple[Float32, list[float], bool]:
    """Vectors as they are stored, ``float32[n, d]``, the factors back to what was given, whether it was one.

    For cosine they are brought to unit length (those that already are, to 1e-6, stay as they are); for the
    other metrics they stay, and every factor is 1.

    Raises
    ------
    InvalidInputError
        What `as_matrix` refuses; a zero vector with cosine; a length whose square float32 cannot hold.
    """
    matrix, given, is_single = _as_rows(vectors, dimension)
    squares: list[float] = np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64).tolist()
    if not math.isfinite(sum(squares)):  # double precision holds the square of any number of float32
        _check_finite(matrix, given)
    longest = max(squares, default=0.0)
    if longest > _MAX_SQUARED_NORM:
        row = squares.index(longest)
        raise InvalidInputError(
            f"row {row} has a squared norm of {longest:.3g}, more than {_MAX_SQUARED_NORM:.0e}: scale it"
        )
    if metric != "cosine":
        return matrix, [1.0] * len(matrix), is_single
    return *_unit_rows(matrix, squares), is_single


def _unit_rows(matrix: Float32, squares: list[float]) -> tuple[Float32, list[float]]:
    if 0.0 in squares:
        row = squares.index(0.0)
        raise InvalidInputError(f"row {row} is the zero vector, which has no direction: cosine refuses it")
    lengths = map(math.sqrt, squares)
    norms = [1.0 if abs(length - 1.0) <= _UNIT_TOLERANCE else length for length in lengths]
    if norms.count(1.0) == len(norms):
        return matrix, norms
    if min(norms) < _MIN_NORMAL_FLOAT32:
        return (matrix / np.array(norms)[:, None]).astype(np.float32), norms
    return matrix / np.array(norms, np.float32)[:, None], norms


def encode_metadatas(metadatas: Any, n: int) -> list[bytes]:
    """The JSON text of each of ``n`` metadata objects; None stands for an empty object."""
    if metadatas is None:
        return [b"{}"] * n
    given = [metadatas] if isinstance(metadatas, Mapping) else as_list(metadatas, "metadatas")
    if len(given) != n:
        raise InvalidInputError(f"expected {n} metadatas, one for each id, got {len(given)}")
    if set(map(type, given)) == {dict}:
        return _encode_objects(given)
    return list(map(_encode_metadata, given, range(n)))


def _encode_objects(given: list[Any]) -> list[bytes]:
    """`_encode_metadata` of many dicts: each is encoded, and only those are looked at that may be wrong."""
    encoded: list[bytes] = []
    try:
        for start in range(0, len(given), _TOGETHER):
            encoded += _encode_together(given[start : start + _TOGETHER], start)
    except TypeError:
        return list(map(_encode_metadata, given, range(len(given))))  # finds the row
    return encoded


def _encode_together(given: list[Any], first: int) -> list[bytes]:
    """Rows from ``first`` on, by one call: a call for each, and memory for it, takes far longer."""
    if len(given) < _FEW:
        return list(map(_encode_metadata, given, range(first, first + len(given))))
    mark = token_hex(16)  # nobody can know what parts the rows, and have it in their text
    marked: list[Any] = [mark] * (2 * len(given) - 1)
    marked[::2] = given
    text = orjson.dumps(marked, plain_date, _JSON_OPTIONS)
    encoded = text[1:-1].split(b',"%s",' % mark.encode())
    if b"null" in text or b"$" in text or max(map(len, encoded)) > MAX_METADATA_BYTES:
        for row, each in enumerate(encoded):
            if b"null" in each or b"$" in each or len(each) > MAX_METADATA_BYTES:
                _check_encoded(given[row], each, first + row)
    return encoded


def _encode_metadata(metadata: Any, row: int) -> bytes:
    if metadata.__class__ is not dict:
        if metadata is None:
            return b"{}"
        metadata = _as_object(metadata, row)
    try:
        encoded = orjson.dumps(metadata, plain_date, _JSON_OPTIONS)
    except TypeError as error:
        field = _unstorable_field(metadata)
        raise InvalidInputError(f"metadata of row {row} cannot be stored as JSON: {field}{error}") from error
    _check_encoded(metadata, encoded, row)
    return encoded


def _unstorable_field(metadata: dict[Any, Any]) -> str:
    """The field that JSON cannot hold, and what it holds, for a message."""
    for name, value in metadata.items():
        try:
            orjson.dumps({name: value}, plain_date, _JSON_OPTIONS)
        except TypeError:
            return f"field {shown(name)} is {shown(value)}: "
    return ""


def _check_encoded(metadata: dict[str, Any], encoded: bytes, row: int) -> None:
    if len(encoded) > MAX_METADATA_BYTES:
        raise InvalidInputError(
            f"metadata of row {row} takes {len(encoded)} bytes, at most {MAX_METADATA_BYTES} are allowed"
        )
    if b"null" in encoded:  # what NaN and infinity turn into
        _check_numbers(metadata, row)
    if b'"$' in encoded:
        _check_fields(metadata, row)


def _as_object(metadata: Any, row: int) -> dict[str, Any]:
    if isinstance(metadata, Mapping):
        return dict(metadata)
    raise InvalidInputError(f"metadata of row {row} must be an object (dict), got {type(metadata).__name__}")


def _check_fields(metadata: dict[str, Any], row: int) -> None:
    wrong = next((key for key in metadata if key.startswith("$")), None)
    if wrong is not None:
        raise InvalidInputError(f"metadata of row {row}: field {wrong!r} starts with $, kept for operators")


def _check_numbers(value: Any, row: int) -> None:
    """Refuse NaN and infinities at any depth; quick, for a plain null brings every record here."""
    items = value.values() if isinstance(value, dict) else value
    for item in items:
        kind = type(item)
        if kind is str or item is None:
            continue
        if kind is float or isinstance(item, np.floating):
            if not math.isfinite(item):
                raise InvalidInputError(f"metadata of row {row} holds {item}, which JSON cannot: use None")
        elif isinstance(item, np.ndarray):
            _check_numbers(item.ravel().tolist(), row)
        elif isinstance(item, Enum):  # stands for its value
            _check_numbers([item.value], row)
        elif isinstance(item, (dict, list, tuple)):  # several times as fast as a union
            _check_numbers(item, row)


def check_documents(documents: Any, n: int) -> list[str | None]:
    """``n`` documents, each text or None."""
    if documents is None:
        return [None] * n
    given = [documents] if isinstance(documents, str) else as_list(documents, "documents")
    if len(given) != n:
        raise InvalidInputError(f"expected {n} documents, one for each id, got {len(given)}")
    for row, document in enumerate(given):
        if document is not None and not isinstance(document, str):
            raise InvalidInputError(f"document of row {row} must be text, got {type(document).__name__}")
        if document and (
            not _is_encodable(document, MAX_DOCUMENT_BYTES) or len(document) > MAX_DOCUMENT_BYTES
        ):
            raise InvalidInputError(
                f"document of row {row} must be valid text of {MAX_DOCUMENT_BYTES} bytes at most"
            )
    return given


def check_vectors(vectors: Any, n: int, dimension: int, metric: Metric) -> tuple[Float32, list[float]]:
    """``n`` vectors in `stored_form`, with their norms."""
    ready = _ready_vector(vectors, dimension, metric) if n == 1 else None
    if ready is not None:
        return ready[0], [ready[1]]
    stored, norms, _ = stored_form(vectors, dimension, metric)
    if len(stored) != n:
        raise InvalidInputError(f"expected {n} vectors, one for each id, got {len(stored)}")
    return stored, norms


def check_queries(vectors: Any, dimension: int, metric: Metric) -> tuple[Float32, bool]:
    """Query vectors as they are searched, ``float32[nq, d]``, and whether it was one vector."""
    ready = _ready_vector(vectors, dimension, metric)
    if ready is not None:
        return ready[0], True
    stored, _, is_single = stored_form(vectors, dimension, metric)
    return stored, is_single


def _ready_vector(vector: Any, dimension: int, metric: Metric) -> tuple[Float32, float] | None:
    """The short way for one float32 vector, whose product with itself tells its length and that it is finite.

    Returns its `stored_form` and norm, or None where the long way must look at it.
    """
    # The one object that NumPy has for float32 in this machine's byte order: any other takes the long way.
    if type(vector) is not np.ndarray or vector.dtype is not _FLOAT32 or vector.shape != (dimension,):
        return None
    double = vector.astype(np.float64)
    square = float(double.dot(double))
    if not _MIN_SQUARED_NORM < square < _MAX_SQUARED_NORM or not vector.flags.c_contiguous:
        return None
    length = math.sqrt(square)
    norm = 1.0 if metric != "cosine" or abs(length - 1.0) <= _UNIT_TOLERANCE else length
    return (vector if norm == 1.0 else vector / np.float32(norm))[None], norm


def check_k(k: Any, nq: int = 1) -> int:
    """``k`` as an int of 1 or more, where ``nq`` answers of k fit."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise InvalidInputError(f"k must be a whole number, got {k!r}")
    if not 1 <= k <= MAX_K:
        raise InvalidInputError(f"k must be between 1 and {MAX_K}, got {k}")
    if nq * int(k) > MAX_HITS:
        raise InvalidInputError(f"{nq} queries of k={k} ask for more than {MAX_HITS} hits: ask in pieces")
    return int(k)


def check_count(value: Any, name: str) -> int:
    """``value`` as an int of 1 or more; ``name`` is what the caller calls it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidInputError(f"{name} must be a whole number of 1 or more, got {value!r}")
    return int(value)


def check_text(text: Any) -> str:
    """``text`` itself, where it is text."""
    if not isinstance(text, str):
        raise InvalidInputError(f"text must be a string, got {type(text).__name__}")
    return text


def check_positive(value: Any, name: str) -> float:
    """``value`` as a finite number above 0."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise InvalidInputError(f"{name} must be a number above 0, got {value!r}")
    return float(value)


def check_fraction(value: Any, name: str) -> float:
    """``value`` as a float, where it is in (0, 1]."""
    is_number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    if not is_number or not 0 < value <= 1:
        raise InvalidInputError(f"{name} must be above 0 and at most 1, got {value!r}")
    return float(value)


def check_radius(radius: Any) -> float:
    """``radius`` as a float that float32 can hold."""
    is_number = isinstance(radius, int | float | np.number) and not isinstance(radius, bool)
    if not is_number or not abs(radius) <= _MAX_FLOAT32:
        raise InvalidInputError(f"radius must be a finite number within float32, got {str(radius)[:80]!r}")
    return float(radius)


def merge_metadata(stored: bytes, changes: Sequence[tuple[str, Any]], row: int) -> bytes:
    """Stored metadata with top-level fields set anew, as ``dict.update`` does."""
    return _encode_metadata({**orjson.loads(stored), **dict(changes)}, row)
