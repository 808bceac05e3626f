"""How this class is graded: nbgrader reads this file when it is called in this folder. Change the limits as you like."""

import sys
from pathlib import Path

from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearHiddenTests,
    LimitOutput,
    SaveAutoGrades,
)

sys.path.insert(0, str(Path(__file__).parent))
from grading import CheckAnswers, Submission

from instructlab_repro.notebooks.exercises import STUB

c = get_config()  # noqa: F821

# One answer with its checker: seconds by the clock, and bytes of memory (Linux) beyond what the imports take.
c.CheckAnswers.seconds = 60
c.CheckAnswers.memory = 2 * 2**30
# "bwrap" or "docker" shuts that process in (sandbox.py); so does `nbgrader autograde LESSON --CheckAnswers.sandbox=bwrap`.
c.CheckAnswers.sandbox = ""

# A submission is read for its answers only; cells that are missing come back, and say so.
c.Autograde.exporter_class = Submission
c.OverwriteCells.add_missing_cells = True

# No kernel runs a submission. Each answer gets a fresh process, and `autograded/` keeps no hidden test, so that
# feedback cannot show one.
c.Autograde.autograde_preprocessors = [
    CheckAnswers,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    ClearHiddenTests,
    CheckCellMetadata,
]

c.ClearSolutions.code_stub = {"python": STUB}
c.NbGrader.logfile = "grading.log"  # which hidden case refused whose answer stands there, for you
