"""How much one call may bring or leave behind, in bytes, where callers are strangers. Knows only numbers."""

from __future__ import annotations

from dataclasses import dataclass

from faissbase.errors import InvalidInputError

# As JSON: a float32 with the digits of a float64; what is around a record's own parts.
NUMBER_BYTES = 22
RECORD_BYTES = 80


class TooLarge(InvalidInputError):
    """A body, an answer, or a number of things, beyond what the settings allow."""

    kind = "too_large"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a database's calls; 0 is none.

    Attributes
    ----------
    metadata_bytes : int
        What the metadata of one record may become by an update, as JSON.
    answer_bytes : int
        What the records of one answer may have, about, as JSON.
    """

    metadata_bytes: int = 0
    answer_bytes: int = 0

    def check_metadata(self, id: str, encoded: bytes) -> None:
        most = self.metadata_bytes
        if most and len(encoded) > most:
            raise TooLarge(
                f"metadata of {id[:80]!r} would have {len(encoded):,} bytes, at most {most:,} are taken; "
                "nothing was updated"
            )

    def check_answer(self, n_bytes: int) -> None:
        most = self.answer_bytes
        if most and n_bytes > most:
            raise TooLarge(f"the answer would have more than {most:,} bytes: ask for less at once")


UNBOUNDED = Bounds()
