"""Infrastructure that a learner never needs to open: assets, runner, records, experiments, tables, command line."""

import sys

# nbformat's validator builds a grammar of international addresses at import, for a second and more; no notebook has one.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
