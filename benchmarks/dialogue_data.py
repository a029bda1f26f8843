"""Conversations with questions and their evidence, read from a folder that is not part of the repository.

Knows the layout of LoCoMo: sessions of turns with ids such as "D3:11", questions that name the turns that
answer them, a few of them badly written ("D8:6; D9:17").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import MiniLM
from faissbase.memory.ranked import Turn

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
_ID = re.compile(r"D:?(\d+):(\d+)")
_WHEN = "%I:%M %p on %d %B, %Y"


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the places of the turns that answer it."""

    text: str
    category: int
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation with its vectors: ``float32[turns, 384]`` and ``float32[questions, 384]``."""

    name: str
    turns: Sequence[Turn]
    questions: Sequence[Question]
    xb: NDArray[np.float32]
    xq: NDArray[np.float32]

    def similarities(self) -> NDArray[np.float32]:
        """``float32[questions, turns]``: cosines."""
        cosines: NDArray[np.float32] = self.xq @ self.xb.T
        return cosines


def load(folder: Path, embedder: MiniLM) -> list[Dialogue]:
    """Every conversation of the ``*.json`` files in ``folder``; questions without evidence are left out."""
    samples = [one for path in sorted(folder.glob("*.json")) for one in json.loads(path.read_text())]
    if not samples:
        raise SystemExit(f"no conversation in {folder}: expected *.json in the layout of LoCoMo")
    return [_dialogue(sample, place, embedder) for place, sample in enumerate(samples)]


def said(turn: Turn) -> str:
    """A turn as it is embedded: who said it belongs to it."""
    return f"{turn.speaker}: {turn.text}"


def _dialogue(sample: Mapping[str, Any], place: int, embedder: MiniLM) -> Dialogue:
    turns = _turns(sample["conversation"])
    places = {turn.id: number for number, turn in enumerate(turns)}
    read = (
        Question(entry["question"], entry["category"], _evidence(entry["evidence"], places))
        for entry in sample["qa"]
    )
    questions = [question for question in read if question.evidence]
    return Dialogue(
        sample.get("sample_id", f"conversation {place + 1}"),
        turns,
        questions,
        embedder.embed([said(turn) for turn in turns]),
        embedder.embed([question.text for question in questions]),
    )


def _turns(conversation: Mapping[str, Any]) -> list[Turn]:
    sessions = [name for name, value in conversation.items() if isinstance(value, list)]
    return [
        Turn(turn["dia_id"], _text(turn), turn["speaker"], name, _time(conversation[f"{name}_date_time"]))
        for name in sorted(sessions, key=lambda name: int(name.rsplit("_", 1)[1]))
        for turn in conversation[name]
    ]


def _text(turn: Mapping[str, Any]) -> str:
    caption = turn.get("blip_caption")
    return f"{turn['text']} [photo: {caption}]" if caption else str(turn["text"])


def _time(written: str) -> datetime:
    return datetime.strptime(written, _WHEN).replace(tzinfo=timezone.utc)


def _evidence(written: Iterable[str], places: Mapping[str, int]) -> tuple[int, ...]:
    named = [f"D{int(s)}:{int(t)}" for entry in written for s, t in _ID.findall(entry)]
    return tuple(places[id] for id in dict.fromkeys(named) if id in places)
