"""FAISS's own names: today plain local ``faiss``, re-exported; remote execution comes with the server."""

from faiss import *  # noqa: F403
from faiss import __version__ as __version__
