"""Pages: tables of results, the ledger of claims, data cards, and the generated blocks of README.md and docs/.

The door: what other rooms, tests and notebooks use.
"""

from instructlab_repro.pages.markdown import blocks_of as blocks_of
from instructlab_repro.pages.markdown import check_blocks as check_blocks
from instructlab_repro.pages.markdown import grid as grid
from instructlab_repro.pages.markdown import show as show
from instructlab_repro.pages.markdown import update_blocks as update_blocks
from instructlab_repro.pages.readme import write_tables as write_tables
