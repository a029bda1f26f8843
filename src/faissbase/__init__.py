"""FAISS made into a database. See `connect`."""
