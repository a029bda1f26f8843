"""Holds three indexes until it is killed."""

from __future__ import annotations

import signal

import faiss_proxy as faiss

held = [faiss.IndexFlatL2(8) for _ in range(3)]
print("held", flush=True)
signal.pause()
