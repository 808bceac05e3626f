"""What receives a cell's outputs: bounded in size and in time, and parameters written as the values that they are.

nbclient joins a cell's text only when the cell has ended, with an expression whose time grows with the square of a
line's length, and keeps all. Here text is joined as it comes, and what a cell prints beyond a limit is counted.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from nbclient.exceptions import CellExecutionComplete
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger
from papermill.translators import PythonTranslator, papermill_translators

TEXT, RICH, ALL = 200_000, 4_000_000, 20_000_000  # characters: a cell's text, its other outputs, a notebook
LEAST, ERROR = 100, 10_000  # what an output of any size counts; how much of each line of a traceback stays
SHOWN = ("display_data", "execute_result", "update_display_data", "comm_open", "comm_msg")


class CappedClient(PapermillNotebookClient):
    """Keeps of each cell what fits, and says how much did not; hears nothing more once ``stopped()``."""

    stopped: Callable[[], bool]
    free = ALL

    def execute_cell(self, cell: Any, cell_index: int, **more: Any) -> Any:
        self._begin()
        try:
            return super().execute_cell(cell, cell_index, **more)
        finally:
            self.free -= min(TEXT, self.free) - self.text + min(RICH, self.free) - self.rich
            _tidy(cell.get("outputs", []), self.cut)

    def _begin(self) -> None:
        self.text, self.rich, self.cut = min(TEXT, self.free), min(RICH, self.free), 0
        self.streams, self.sizes = dict[str, Any](), dict[str, int]()

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        kind, content = msg["msg_type"], msg["content"]
        if self.stopped():
            raise CellExecutionComplete
        if kind == "clear_output":
            self._begin()
        elif kind == "error":
            self.cut += sum(max(0, len(line) - ERROR) for line in content["traceback"])
            content["traceback"] = [line[:ERROR] for line in content["traceback"]]
            content["evalue"] = content["evalue"][:ERROR]
        elif kind in SHOWN:
            name = content.get("comm_id") or (content.get("transient") or {}).get("display_id") or ""
            size = len(json.dumps(content, default=str)) + sum(len(part) for part in msg.get("buffers") or ())
            # an update replaces what was shown
            cost = max(0, size - self.sizes[name]) if name in self.sizes else max(LEAST, size)
            if cost > self.rich:
                self.cut += size
                return None
            self.rich -= cost
            self.sizes |= {name: size} if name else {}
        elif kind == "stream":
            whole = len(content["text"])
            content["text"] = content["text"][: self.text]
            self.text -= len(content["text"])
            self.cut += whole - len(content["text"])
            if not content["text"]:
                return None
            if same := self.streams.get(content["name"]):
                same["text"] += content["text"]
                self.nb_man.autosave_cell()
                return same
        output = super().process_message(msg, cell, cell_index)
        if kind == "stream" and output:
            self.streams[content["name"]] = output
        return output


def _tidy(outputs: list[Any], cut: int) -> None:
    """Text as a terminal shows it, standard output before standard error, and how much was left out."""
    for output in outputs:
        if output.output_type == "stream":
            lines = output.text.split("\n")
            output.text = "\n".join(line[line.rfind("\r", 0, max(0, len(line) - 1)) + 1 :] for line in lines)
    for i, (a, b) in enumerate(itertools.pairwise(outputs)):
        if (a.get("name"), b.get("name")) == ("stderr", "stdout"):
            outputs[i : i + 2] = [b, a]
    if cut:
        said = f"[{cut:,} characters of output were left out: a cell may show {TEXT:,} of text, {RICH:,} of all else]"
        outputs.append(new_output("stream", name="stderr", text=said + "\n"))


class CappedEngine(NBClientEngine):
    """Papermill's engine with that client."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, stopped: Callable[[], bool], start_timeout: int, **more: Any
    ) -> None:
        options = {name: more[name] for name in ("config", "kernel_manager_class", "on_cell_execute")}
        limits = {"timeout": more["execution_timeout"], "startup_timeout": start_timeout, "iopub_timeout": 60}
        client = CappedClient(nb_man, kernel_name=kernel_name, log=logger, **options, **limits)
        client.stopped = stopped
        client.execute()


class ExactTranslator(PythonTranslator):
    """Writes a parameter as the literal that it is; papermill alone makes a string of a tuple and of a table's keys."""

    @classmethod
    def translate(cls, val: Any) -> str:
        if isinstance(val, dict):
            return "{" + "".join(f"{cls.translate(k)}: {cls.translate(v)}, " for k, v in val.items()) + "}"
        if isinstance(val, list | tuple):
            opened, closed = "()" if isinstance(val, tuple) else "[]"
            return opened + "".join(f"{cls.translate(v)}, " for v in val) + closed
        return str(super().translate(val))


papermill_translators.register("python", ExactTranslator)
papermill_engines.register("capped", CappedEngine)
