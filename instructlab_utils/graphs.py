"""A small store of facts (subject, relation, object): questions about one step and two, and facts as text.

Built in lesson 24, section 7. The facts of the course are WebNLG's.

Taught in lesson 24.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from instructlab_utils import tasks
from instructlab_utils.errors import ParameterError
from instructlab_utils.retrieval import BM25, ranking

Fact = tuple[str, str, str]

# Questions about one relation as a person would ask them, mostly without the relation's own words. They are ours.
WORDINGS = {
    "birthDate": "On which day was {} born?", "birthPlace": "Where was {} born?", "country": "In which country is {}?",
    "genre": "What kind of music is {}?", "producer": "Who made {}?", "runtime": "How long does {} last?",
    "leaderTitle": "What is the head of {} called?", "location": "Where is {}?", "areaTotal": "How large is {}?",
    "precededBy": "What came before {}?", "leader": "Who governs {}?", "followedBy": "What came after {}?",
    "nationality": "Of which nation is {}?", "director": "Who directed {}?", "foundingDate": "When did {} begin?",
    "almaMater": "Where did {} study?", "deathDate": "On which day did {} die?", "releaseDate": "When did {} come out?",
    "professionalField": "In what area does {} work?", "writer": "Who wrote {}?", "language": "What do people speak in {}?",
    "deathPlace": "Where did {} die?", "elevationAboveTheSeaLevel": "How high does {} lie?",
    "industry": "In which business is {}?", "starring": "Who plays in {}?", "artist": "Who sings or plays on {}?",
    "governmentType": "How is {} governed?", "demonym": "What are people from {} called?",
    "city": "In which town is {}?", "operatingOrganisation": "Who runs {}?", "runwayName": "Which airstrip has {}?",
    "mission": "On which flight was {}?", "netIncome": "How much did {} earn?", "recordLabel": "Which company published {}?",
    "knownFor": "What made {} famous?", "numberOfEmployees": "How many people work for {}?",
    "populationDensity": "How many people live on a square kilometre of {}?", "timeZone": "Which time do clocks in {} show?",
    "utcOffset": "How many hours is {} ahead of Greenwich?", "residence": "Where does {} live?",
    "populationTotal": "How many people live in {}?", "musicComposer": "Who wrote the music of {}?",
    "editing": "Who cut the film {}?", "product": "What does {} sell?", "capital": "What is the main city of {}?",
    "established": "When was {} opened?", "spouse": "Whom did {} marry?", "campus": "Where do the students of {} learn?",
    "motto": "What is the slogan of {}?", "runwayLength": "How long is the airstrip of {}?",
    "owner": "To whom does {} belong?", "award": "Which prize did {} win?", "occupation": "What is the job of {}?",
    "height": "How tall is {}?", "broadcastedBy": "Which station showed {}?", "citizenship": "Which passport does {} have?",
    "cinematography": "Who filmed {}?", "keyPerson": "Who is important at {}?", "subsidiary": "Which company belongs to {}?",
    "album": "On which record is {}?", "ethnicGroup": "Which people live in {}?", "longName": "What is {} called in full?",
    "gross": "How much money did {} bring in?", "distributor": "Who brought {} into cinemas?",
    "currency": "With what money does one pay in {}?", "builder": "Who built {}?", "author": "Who wrote {}?",
    "instrument": "What does {} play on?", "party": "For which political group did {} stand?",
    "successor": "Who came after {}?", "president": "Who is at the top of {}?", "manager": "Who trains {}?",
    "architect": "Who designed {}?", "creator": "Who invented {}?", "firstAired": "When was {} shown for the first time?",
    "lastAired": "When was {} shown for the last time?", "mainIngredient": "What is {} made of?",
    "doctoralAdvisor": "Who guided the thesis of {}?", "influencedBy": "Who inspired {}?", "editor": "Who edited {}?",
    "parentCompany": "To which firm does {} belong?", "formerName": "What was {} called before?",
    "headquarter": "Where is the main office of {}?", "revenue": "How much does {} take in?",
    "publisher": "Who published {}?", "manufacturer": "Who makes {}?", "numberOfStudents": "How many people study at {}?",
    "dissolutionYear": "When did {} end?", "nickname": "What do fans call {}?", "weight": "How heavy is {}?",
}  # fmt: skip


def words_of_relation(relation: str) -> str:
    """``birthPlace`` → "birth place"; "associatedBand/associatedMusicalArtist" → the part before the slash, in words."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", relation.partition("/")[0])
    return parts.replace("_", " ").lower()


def told(fact: Fact) -> str:
    """A fact as a line of text: "birth place of Alan Shepard: New Hampshire"."""
    return f"{words_of_relation(fact[1])} of {fact[0]}: {fact[2]}"


@dataclass(frozen=True)
class Question:
    """A question about ``path``, relations to follow from ``subject``; ``answers`` are all right ones, sorted."""

    subject: str
    path: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def asked(self) -> str | None:
        """The question as a person would ask it (``WORDINGS``): "Where was Alan Shepard born?"; None where we wrote none."""
        worded = WORDINGS.get(self.path[0]) if len(self.path) == 1 else None
        return worded.format(self.subject) if worded else None

    @property
    def text(self) -> str:
        """The question in the graph's own words: "What is the country of the birth place of Alan Shepard?"."""
        return f"What is the {' of the '.join(map(words_of_relation, self.path[::-1]))} of {self.subject}?"


class Graph:
    """Facts, each once; names are stripped of quotation marks. ParameterError for a fact with an empty part.

    Source: lesson 24, section 7.
    """

    def __init__(self, facts: Iterable[Sequence[str]]) -> None:
        clean = {tuple(part.strip().strip('"').strip() for part in fact) for fact in facts}
        if bad := [fact for fact in clean if len(fact) != 3 or not all(fact)]:
            raise ParameterError(
                f"{bad[0]!r} is no fact: write subject, relation, object, none of them empty"
            )
        self.facts: list[Fact] = sorted((s, r, o) for s, r, o in clean)
        self.by_subject: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            self.by_subject[fact[0]].append(fact)

    def about(self, subject: str) -> list[Fact]:
        """All facts of a subject; [] for an unknown one."""
        return list(self.by_subject.get(subject, ()))

    def follow(self, subject: str, path: Sequence[str]) -> list[str]:
        """All objects at the end of ``path``, sorted: one step for each relation, from every object of the step before."""
        here = {subject}
        for relation in path:
            here = {o for s in here for _, r, o in self.about(s) if r == relation}
        return sorted(here)

    def reach(self, subject: str, steps: int = 1) -> list[str]:
        """All objects that are ``steps`` facts away from the subject, whatever the relations, sorted."""
        here = {subject}
        for _ in range(steps):
            here = {o for s in here for _, _, o in self.about(s)}
        return sorted(here)

    def relations(self, subject: str) -> dict[str, str]:
        """The subject's relations in words, each with its first object."""
        return {words_of_relation(relation): o for _, relation, o in reversed(self.about(subject))}

    def linked(self, text: str) -> str | None:
        """The longest subject whose name stands in ``text`` as it is, of equals the first; None where there is none."""
        found = [s for s in self.by_subject if re.search(rf"(?<!\w){re.escape(s)}(?!\w)", text)]
        return min(found, key=lambda s: (-len(s), s), default=None)

    def questions(self, steps: int = 1, least: int = 1) -> Iterator[Question]:
        """Every question of one step or two that has an answer, where the subject reaches ``least`` objects or more."""
        if steps not in (1, 2):
            raise ParameterError(f"questions of {steps} steps: choose 1 or 2")
        for subject in sorted(self.by_subject):
            if len(self.reach(subject, steps)) < least:
                continue
            paths: set[tuple[str, ...]] = {(r,) for _, r, _ in self.about(subject)}
            if steps == 2:
                paths = {(r, r2) for _, r, o in self.about(subject) for _, r2, _ in self.about(o)}
            for path in sorted(paths):
                yield Question(subject, path, tuple(self.follow(subject, path)))


def webnlg() -> Graph:
    """The graph of all facts in the task webnlg. Source: Gardent et al. (2017); lesson 24, section 7."""
    return Graph(
        fact for part in tasks.load("webnlg").splits.values() for row in part for fact in row["triples"]
    )


def search(graph: Graph, texts: Sequence[str], k: int) -> list[list[Fact]]:
    """For each text the ``k`` facts whose lines (:func:`told`) share most with it, by BM25. Source: lesson 24, section 7."""
    store = BM25([told(fact) for fact in graph.facts])
    return [[graph.facts[i] for i in ranking(store.scores(text))[:k].tolist()] for text in texts]


def own_questions(graph: Graph, n: int, seed: int, seeds: Sequence[int]) -> list[Question]:
    """``seed``'s own ``n`` worded questions of one step (`tasks.disjoint`): subjects with four objects or more, whose name
    the split by hash does not put into dev. Raises DataError where they do not suffice. Source: lesson 24, section 12.
    """
    from datasets import Dataset

    found = [q for q in graph.questions(1, 4) if q.asked and tasks.split_of(q.subject) != "dev"]
    rows = [{"id": str(q.asked), "group": q.subject, "place": place} for place, q in enumerate(found)]
    return [found[place] for place in tasks.disjoint(Dataset.from_list(rows), n, seed, seeds)["place"]]
