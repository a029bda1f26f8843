"""FAISS's own names. Today an honest re-export of the local ``faiss``; remote execution comes with the server."""

from faiss import *  # noqa: F403
from faiss import __version__ as __version__
