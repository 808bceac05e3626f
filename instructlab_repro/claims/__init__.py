"""Claims as data, written before the runs that test them, and the verdicts that the runs give them.

data/claims/<id>.toml names statistics; each yields one number per seed. The interval of those numbers decides: wholly
beyond the threshold on the claimed side is supported, wholly on the other refuted, everything else undecided.
"""

from instructlab_repro.claims.claim import FOLDER, Claim, Power, load, names
from instructlab_repro.claims.evidence import example_cells, numbers_of
from instructlab_repro.claims.lineage import explain
from instructlab_repro.claims.planning import plan, plan_text
from instructlab_repro.claims.report import FLAGS, ledger, render, write_ledger
from instructlab_repro.claims.statistic import AnyStatistic, PerSeed, per_seed
from instructlab_repro.claims.verdicts import keep_bootstraps, verdict

__all__ = [
    "FLAGS", "FOLDER", "AnyStatistic", "Claim", "PerSeed", "Power", "example_cells", "explain", "keep_bootstraps",
    "ledger", "load", "names", "numbers_of", "per_seed", "plan", "plan_text", "render", "verdict", "write_ledger",
]  # fmt: skip
