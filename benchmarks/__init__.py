"""Measurements of faissbase beside FAISS, the disk and other embedded databases. See ``README.md`` here."""
