"""The thin package behind the lessons: what several notebooks need, and nothing that a library already does.

Each public function and class names the lesson that derives it, or its module names one for all of them. Heavy libraries
(torch, transformers, datasets) are imported by the modules that use them, so ``import instructlab_utils`` stays cheap.
"""

import sys

from instructlab_utils.errors import OPTIMISED, ConfigError
from instructlab_utils.run import Run, expect_error, start

if not __debug__ and sys.argv[:1] != ["-m"]:  # the command line says it without a traceback
    raise ConfigError(OPTIMISED)

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "expect_error", "start"]
