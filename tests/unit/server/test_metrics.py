"""What a tenant is told of its indexes in numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from tests.unit.server.test_app import ask

from faissbase.server.app import Server
from faissbase.server.databases import folder_databases
from faissbase.server.keys import Keys
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants


def test_segments_and_recall_of_an_index_are_told(folder: Path) -> None:
    server = Server(Settings(), Keys(folder), Tenants(folder, folder_databases(folder)))
    rows = np.random.default_rng(0).standard_normal((500, 8)).tolist()
    records = [{"id": str(i), "values": row} for i, row in enumerate(rows)]
    for name, kind in (("exact", "Flat"), ("graph", "HNSW")):
        ask(server, "POST", "/index", json={"name": name, "dimension": 8, "index_type": kind})
        ask(server, "POST", f"/index/{name}/vectors", json={"vectors": records})
        ask(server, "POST", f"/index/{name}/optimize")
    [answer] = ask(server, "GET", "/metrics")
    server.close()
    told = dict(re.findall(r'^faissbase_index_(\w+{index="\w+"}) (\S+)$', answer.text, re.MULTILINE))
    assert (told['segments{index="exact"}'], told['recall{index="exact"}']) == ("0", "1.0")
    assert told['segments{index="graph"}'] == "1"
    assert 0.95 <= float(told['recall{index="graph"}']) <= 1.0
