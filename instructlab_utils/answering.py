"""Questions to a decoder, answered from its weights alone, with evidence before them, or under what a graph allows.

Nothing is trained. Each format is read once and answered in several ways (`reading`). Lesson 24, sections 6 to 8.

Taught in lesson 24.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from instructlab_utils.errors import ParameterError
from instructlab_utils.graphs import Graph, Question, search, told
from instructlab_utils.reading import Answer, Reading, answer_trie, asked, exact

GRAPH_ARMS = ("closed", "closed_entity", "facts", "facts_entity", "query")


class GraphQuestions:
    """Worded questions about ``graph``, with the ``k`` facts that a search by words finds for each as ``lines``.

    ``found``: 1.0 where a right fact is among them, else 0.0. An answer has at most ``most`` tokens.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        graph: Graph,
        questions: Sequence[Question],
        k: int = 5,
        most: int = 20,
    ) -> None:
        self.model, self.tokenizer, self.graph, self.questions, self.most = (
            model,
            tokenizer,
            graph,
            questions,
            most,
        )
        self.texts = [str(q.asked) for q in questions]
        near = search(graph, self.texts, k)
        self.lines = [[told(fact) for fact in each] for each in near]
        pairs = zip(questions, near, strict=True)
        self.found = [float((q.subject, *q.path) in {fact[:2] for fact in each}) for q, each in pairs]
        self.read: dict[str, Reading] = {}

    def reading(self, arm: str) -> Reading:
        """The questions in the format of an arm: with facts, without, or with a relation to be named."""
        if arm not in GRAPH_ARMS:
            raise ParameterError(f"unknown arm {arm!r}: choose one of {', '.join(GRAPH_ARMS)}")
        form = "relation" if arm == "query" else arm.removesuffix("_entity")
        if form not in self.read:
            lines = self.lines if form == "facts" else ()
            self.read[form] = asked(self.model, self.tokenizer, self.texts, form, lines)
        return self.read[form]

    def answers(self, arm: str) -> list[str]:
        """One text a question. ``…_entity``: only objects of the question's subject may be written. ``query``: the model may
        only write a relation of the subject, and the graph says the object.
        """
        reader, subjects = self.reading(arm), [q.subject for q in self.questions]
        if arm in ("closed", "facts"):
            return [answer.text for answer in reader.answers(None, self.most)]
        if arm == "query":
            known = [self.graph.relations(s) for s in subjects]
            said = reader.answers([answer_trie(list(each), self.tokenizer) for each in known], self.most)
            return [each.get(answer.text, "") for each, answer in zip(known, said, strict=True)]
        tries = [answer_trie(self.graph.reach(s), self.tokenizer) for s in subjects]
        return [answer.text for answer in reader.answers(tries, self.most)]

    def right(self, texts: Sequence[str], shift: int = 0) -> list[float]:
        """1.0 where a text is a right answer; with ``shift``, of another question: a control."""
        truths = [q.answers for q in self.questions]
        return exact(texts, truths[shift:] + truths[:shift])

    def log_right(self, arm: str) -> float:
        """Mean log-probability a token of the first right answer in the format of ``arm``, without a constraint."""
        return self.reading(arm).log_probs([q.answers[0] for q in self.questions]).mean().item()


def with_passages(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    lines: Sequence[Sequence[str]],
    most: int = 20,
) -> tuple[list[Answer], list[float], Tensor]:
    """Answers to QA rows, whether each is right, and the log-probability a token of each row's first answer.

    ``lines``: the passage of each row, as a list of one line; () for none.
    """
    texts = [row["question"] for row in rows]
    reader = asked(model, tokenizer, texts, "passage" if lines else "closed", lines)
    said = reader.answers(None, most)
    right = exact([answer.text for answer in said], [row["answers"] for row in rows])
    return said, right, reader.log_probs([row["answers"][0] for row in rows])
