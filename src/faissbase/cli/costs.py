"""Where the measured costs of this machine are kept, and what is used where there are none."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.sharded.costs import Costs
from faissbase.sharded.default_costs import DEFAULT_COSTS
from faissbase.storage import files

COSTS_VARIABLE = "FAISSBASE_COSTS"
DEFAULT_COSTS_FILE = "~/.config/faissbase/costs.json"
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class KnownCosts:
    """Costs and the words that say where they come from."""

    costs: Costs
    is_calibrated: bool
    source: str


def costs_file() -> Path:
    """Where ``bench calibrate`` writes and ``plan`` reads, unless told otherwise."""
    return Path(os.environ.get(COSTS_VARIABLE) or DEFAULT_COSTS_FILE).expanduser()


def load_costs() -> KnownCosts:
    """The costs that were measured, or those that come along.

    Raises
    ------
    NotFoundError
        FAISSBASE_COSTS names a file that is not there.
    InvalidInputError
        The file holds no costs.
    """
    path = costs_file()
    if not path.exists():
        if os.environ.get(COSTS_VARIABLE):
            raise NotFoundError(f"{COSTS_VARIABLE}: no file {path}; faissbase bench calibrate makes it")
        return KnownCosts(DEFAULT_COSTS, False, _built_in())
    with files.os_errors(f"cannot read {path}"):
        content = path.read_bytes()
    try:
        costs = Costs.from_json(content)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}; faissbase bench calibrate writes it anew") from error
    return KnownCosts(costs, True, f"calibrated on {costs.machine}, {costs.measured_on} ({path})")


def _built_in() -> str:
    return (
        f"built in, measured on {DEFAULT_COSTS.machine}, {DEFAULT_COSTS.measured_on}; "
        "faissbase bench calibrate measures this machine"
    )


def save_costs(costs: Costs, path: Path) -> None:
    """Write ``costs``, whole or not at all."""
    with files.os_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.draft_folder(path.parent) as folder:
            draft = folder / path.name
            draft.write_bytes(costs.to_json())
            files.publish(draft, path)


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()
