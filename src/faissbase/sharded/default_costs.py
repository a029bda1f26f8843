"""`Costs` where nothing was measured: those of the machine that faissbase was written on."""

from __future__ import annotations

from typing import Final

from faissbase.sharded.costs import CodecCosts, Costs, Line

DEFAULT_COSTS: Final = Costs(
    machine="AMD EPYC",
    measured_on="2026-11-27",
    assign=Line(1.7, 0.028),
    train_ratio=1.13,
    coarse=Line(6.0, 0.49),
    graph_assign=Line(4624, 300),
    graph_probe=Line(2378, 7.78),
    rerank=Line(1580, 0.7),
    record_us=10,
    record_bytes=150,
    search_us=100,
    codecs={
        "Flat": CodecCosts(Line(500, 6.6), Line(1, 0.135), Line(5000, 5)),
        "SQ8": CodecCosts(Line(300, 5), Line(5, 0.25), Line(8000, 10)),
        "PQfs": CodecCosts(Line(200, 23), Line(0.3, 0.17), Line(10000, 0.3)),
        "RaBitQfs": CodecCosts(Line(0, 14), Line(8, 0.12), Line(9000, 10)),
        "PQ8": CodecCosts(Line(0, 44), Line(2, 0.98), Line(9000, 18)),
    },
)
