"""The tasks: readers, duplicates, groups, splits, samples, cache, cards."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import random
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructlab_repro.pages import cards
from instructlab_utils import cache, tasks
from instructlab_utils.errors import AssetError, ConfigError, DataError
from instructlab_utils.tasks import readers, splits
from instructlab_utils.tasks.readers import Row, clean

MOVIES = "movieReviewSnippets_GroundTruth.txt"
PRODUCTS = "amazonReviewSnippets_GroundTruth.txt"
TOPICS = ("business", "entertainment", "politics", "sports", "tech")
READ_AGAIN = (
    "slots", "triples", "databases", "pairs", "choices", "closed", "parallel", "disfluent", "filed", "lines", "annotated",
)  # fmt: skip
CLASSES = [name for name, told in tasks.tables().items() if told.kind == "classification"]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for both data assets, with a small movie file and forty articles."""
    folder = tmp_path / "raw"
    folder.mkdir()
    lines = [f"{i}\t{(-1) ** i * 2.5}\tsentence number {i} of the small file\r\n" for i in range(120)]
    (folder / MOVIES).write_text("".join(lines), encoding="utf-8", newline="")
    for topic in TOPICS:
        (folder / "bbcnews" / "data" / topic).mkdir(parents=True)
        for i in range(8):
            path = folder / "bbcnews" / "data" / topic / f"{i:03}.txt"
            path.write_text(f"Title {i} about {topic}\n\nParagraph {i}.\n\nThe end.\n", encoding="utf-8")
    monkeypatch.setattr(cache, "folder", lambda name: folder)
    monkeypatch.setattr(cache, "home", lambda: tmp_path / "home")
    return folder


# --- readers -----------------------------------------------------------------------------------------------------


def test_clean_resolves_entities_also_twice_escaped_and_white_space() -> None:
    assert clean("  Lord &amp;amp; Taylor \t&lt;3\u00a0 caf&#233; ") == "Lord & Taylor <3 café"


def test_rated_lines_are_read_with_rating_and_article(tmp_path: Path) -> None:
    path = tmp_path / PRODUCTS
    path.write_bytes("12_1\t-0.9\tno  picture\r\n12_2\t0.5\tRock &amp; roll\n13_1\t3\tcafé\x0b!\n".encode())
    counts: Counter[str] = Counter()
    rows = list(readers.rated([path], counts, has_articles=True))
    assert rows == [  # NaN labels would make rows unequal, so this also says that no rating was lost
        Row("no picture", -0.9, None, "12"),
        Row("Rock & roll", 0.5, None, "12"),
        Row("café !", 3.0, None, "13"),
    ]
    assert counts["texts with HTML entities"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"2_1\t1.5 text without a second tab", r"line 2: 2 field\(s\), not 3: put one tab"),
        (b"2_1\t1.5\ttext\tand more", r"line 2: 4 field\(s\), not 3"),
        (b"", r"line 2: 1 field\(s\), not 3"),
        (b"2_1\tgood\ttext", r"line 2, field 2 \(rating\): 'good': write a number from -4 to 4"),
        (b"2_1\t\ttext", r"line 2, field 2 \(rating\): ''"),
        (b"2_1\tnan\ttext", r"line 2, field 2 \(rating\): 'nan'"),
        (b"2_1\t4.01\ttext", r"line 2, field 2 \(rating\): '4.01'"),
        (b"2-1\t1\ttext", r"line 2, field 1 \(id\): '2-1': write article_sentence"),
        (b"2_1\t1\t &nbsp; ", r"line 2, field 3 \(text\) is empty"),
        (b"2_1\t1\tcaf\xe9", r"line 2, field 3: byte 0xe9 is not UTF-8: save the file as UTF-8"),
    ],
)
def test_malformed_line_names_file_line_field_and_fix(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / PRODUCTS
    path.write_bytes(b"1_1\t1\tfine\r\n" + line + b"\r\n3_1\t1\tfine\r\n")
    with pytest.raises(DataError, match=message) as caught:
        list(readers.rated([path], Counter(), has_articles=True))
    assert str(path) in str(caught.value)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / MOVIES).write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        list(readers.rated([tmp_path / MOVIES], Counter()))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"1", b"_", b"\t", b"\n", b"\r", b"-", b".5", b"nan", b"\xff", b"&lt;", b"a"]),
        max_size=12,
    )
)
def test_any_bytes_give_rows_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(b"".join(parts))
    try:
        rows = list(readers.rated([path], Counter(), has_articles=True))
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert rows and all(row.text and -4 <= row.rating <= 4 and row.article for row in rows)


def article(folder: Path, content: bytes, topic: str = "sports") -> Path:
    path = folder / topic / "199.txt"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_article_is_title_line_break_body(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    (row,) = readers.filed(
        [article(tmp_path, "Title &amp; more\n\nOne  para.\n\nTwo £5.\n".encode())], counts
    )
    assert (row.text, row.label) == ("Title & more\nOne para. Two £5.", "sports")
    assert math.isnan(row.rating)
    assert counts == {"texts with HTML entities": 1}


def test_article_in_windows_1252_is_repaired_and_counted(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    (row,) = readers.filed([article(tmp_path, b"Title\nIt cost \xa35.\n")], counts)
    assert row.text == "Title\nIt cost £5."
    assert counts["files not in UTF-8"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"Title\n\nbody \xa3 and \x81\n",
            r"199\.txt, line 3: byte 0x81 is neither UTF-8 nor Windows-1252",
        ),
        (b"Only a title\n\n", r"199\.txt, line 1: title or body is missing"),
        (b"", r"199\.txt, line 1: title or body is missing"),
    ],
)
def test_malformed_article_names_file_and_fix(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(readers.filed([article(tmp_path, content)], Counter()))


def test_unknown_task_names_the_known_and_the_likely() -> None:
    with pytest.raises(
        DataError, match=r"unknown task 'movie_sentiment', did you mean 'movie-sentiment'\? .*bbc-topics"
    ):
        tasks.load("movie_sentiment")
    with pytest.raises(DataError, match=r"unknown task \['bbc-topics'\], did you"):
        tasks.load(["bbc-topics"])  # type: ignore[arg-type]


def test_missing_file_says_how_to_fetch(raw: Path) -> None:
    with pytest.raises(DataError, match=r"no tweets_GroundTruth\.txt in .*fetch --only vader"):
        tasks.load("tweet-sentiment")


# --- labels, duplicates, groups, splits --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rating", "label"),
    [
        (0.5, None),
        (math.nextafter(0.5, 1), "positive"),
        (-0.5, None),
        (-0.51, "negative"),
        (0.0, None),
        (4.0, "positive"),
    ],
)
def test_thresholds_are_left_out(rating: float, label: str | None) -> None:
    assert splits.label_of(Row("a", rating)) == label


def test_shingles_ignore_case_and_punctuation_and_keep_short_texts_whole() -> None:
    assert tasks.shingles("One two, THREE four five six!") == {
        "one two three four five",
        "two three four five six",
    }
    assert tasks.shingles("Very good.") == {"very good"}
    assert tasks.shingles("?!") == {"?!"}


def test_near_duplicates_are_those_of_the_exact_comparison() -> None:
    """MinHash only proposes: against all pairs compared one by one, nothing is missing and nothing is added."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(300)]
    texts = []
    for _ in range(60):
        base = [rng.choice(words) for _ in range(rng.randint(3, 60))]
        texts.append(" ".join(base))
        changed = base.copy()
        changed[rng.choice((0, -1))] = rng.choice(words)
        texts.append(" ".join(changed).upper() + "!")
    texts += ["Well done.", "well done", "well, done!"]
    sets = [tasks.shingles(text) for text in texts]
    exact = [
        (i, j)
        for i, j in combinations(range(len(texts)), 2)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= 0.8
    ]
    assert len(exact) > 20
    assert sorted(tasks.near_duplicates(texts)) == exact


def test_components_follow_chains() -> None:
    assert splits.components(7, [(5, 6), (1, 3), (3, 5), (2, 4)]) == [0, 1, 2, 1, 2, 1, 1]
    assert splits.components(2, []) == [0, 1]


def test_split_is_a_fixed_function_of_the_group_with_the_stated_shares() -> None:
    found = Counter(tasks.split_of(f"group {i}") for i in range(20_000))
    for split, share in splits.SHARES.items():
        assert found[split] / 20_000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 20_000))
    for group in map(str, range(50)):
        number = int(hashlib.sha256(f"instructlab-1:{group}".encode()).hexdigest(), 16) / 16**64
        assert tasks.split_of(group) == ("train" if number < 0.65 else "dev" if number < 0.8 else "test")


def arranged(rows: list[Row]) -> tuple[dict[str, list[dict[str, object]]], Counter[str]]:
    counts: Counter[str] = Counter()
    return splits.arrange(rows, counts), counts


def test_copies_are_kept_once_or_dropped_when_they_contradict() -> None:
    rows = [
        Row("agreeing copies", 1.0),
        Row("agreeing copies", 2.0),
        Row("opposite copies", 1.0),
        Row("opposite copies", -1.0),
        Row("one copy without a label", 1.0),
        Row("one copy without a label", 0.2),
        Row("neutral", 0.1),
        Row("single", -3.0),
    ]
    splits, counts = arranged(rows)
    kept = {row["text"]: (row["label"], row["rating"]) for part in splits.values() for row in part}
    assert kept == {"agreeing copies": ("positive", 1.5), "single": ("negative", -3.0)}
    assert counts["copies of another text"] == 3
    assert counts["texts dropped: copies with different labels"] == 2
    assert counts["texts left out: rating between the thresholds"] == 1


def test_articles_linked_by_a_near_duplicate_form_one_group() -> None:
    rows = [
        Row("the first sentence of the first article stands here", 1.0, article="1"),
        Row("Well done, everybody.", 2.0, article="1"),
        Row("well done everybody", 2.0, article="2"),
        Row("an entirely different sentence from the second article", -2.0, article="2"),
        Row("nothing to do with the two others at all", -2.0, article="3"),
    ]
    splits, counts = arranged(rows)
    group = {row["text"]: row["group"] for part in splits.values() for row in part}
    assert len({group[row.text] for row in rows[:4]}) == 1
    assert group[rows[4].text] != group[rows[0].text]
    assert group[rows[0].text] == min(tasks.content_id(row.text) for row in rows[:4])
    assert (counts["articles"], counts["groups"], counts["near-duplicate clusters"]) == (3, 2, 1)


def many_rows() -> list[Row]:
    rng = random.Random(1)
    return [
        Row(f"text {i // 2} {'.' * (i % 2)}", rng.uniform(-4, 4), article=str(i // 7)) for i in range(300)
    ]


def test_splits_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = many_rows()
    shuffled = random.Random(2).sample(rows, len(rows))
    assert arranged(rows) == arranged(shuffled)


def test_another_threshold_moves_no_text_to_another_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def places() -> dict[object, tuple[str, object]]:
        return {
            row["id"]: (split, row["group"])
            for split, part in arranged(many_rows())[0].items()
            for row in part
        }

    wide = places()
    monkeypatch.setattr(splits, "CUT", 2.0)
    narrow = places()
    assert 0 < len(narrow) < len(wide)
    assert all(wide[key] == place for key, place in narrow.items())


# --- load and its cache ------------------------------------------------------------------------------------------


def test_load_has_the_schema_and_is_stored_once(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import ClassLabel

    task = tasks.load("movie-sentiment")
    assert (task.kind, task.labels, task.assets) == ("classification", ("negative", "positive"), ("vader",))
    assert task.thresholds == {"negative": -0.5, "positive": 0.5}
    assert "MIT" in task.licence and "Hutto" in task.source
    assert list(task.splits) == ["train", "dev", "test"]
    assert sum(len(part) for part in task.splits.values()) == task.counts["rows read"] == 120
    for part in task.splits.values():
        assert part.column_names == ["id", "text", "label", "rating", "group"]
        assert part.features["label"] == ClassLabel(names=["negative", "positive"])
        for row in part:
            assert row["id"] == hashlib.sha256(row["text"].encode()).hexdigest()[:16]
            assert task.labels[row["label"]] == ("positive" if row["rating"] > 0 else "negative")

    monkeypatch.setattr(tasks, "_store", lambda *_: pytest.fail("built a second time"))
    again = tasks.load("movie-sentiment")
    assert {k: v.to_dict() for k, v in again.splits.items()} == {
        k: v.to_dict() for k, v in task.splits.items()
    }
    assert again.counts == task.counts


def test_articles_have_no_rating_and_no_threshold(raw: Path) -> None:
    task = tasks.load("bbc-topics")
    rows = [row for part in task.splits.values() for row in part]
    assert Counter(task.labels[row["label"]] for row in rows) == dict.fromkeys(TOPICS, 8)
    assert all(math.isnan(row["rating"]) for row in rows)
    assert task.thresholds == {}
    assert "non-commercial" in task.licence


def test_too_few_texts_for_three_splits_are_refused(raw: Path, tmp_path: Path) -> None:
    (raw / MOVIES).write_text("1\t3\tonly one sentence\n", encoding="utf-8")
    with pytest.raises(DataError, match="movie-sentiment: no text falls into "):
        tasks.load("movie-sentiment")
    assert not [path for path in (tmp_path / "home" / "tasks").iterdir() if path.is_dir()]


def test_changed_raw_file_is_read_again(raw: Path) -> None:
    before = tasks.load("movie-sentiment").counts["rows read"]
    with (raw / MOVIES).open("a", encoding="utf-8") as file:
        file.write("121\t3\tone more sentence\n")
    assert tasks.load("movie-sentiment").counts["rows read"] == before + 1


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_or_killed_store_leaves_nothing_half_written(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(tasks.os, "replace", fail)
        if isinstance(failure, OSError):
            with pytest.raises(
                AssetError, match=r"cannot write .*No space left.*free space or set INSTRUCTLAB_HOME"
            ):
                tasks.load("movie-sentiment")
        else:
            with pytest.raises(KeyboardInterrupt):
                tasks.load("movie-sentiment")
        assert [path.name for path in (tmp_path / "home" / "tasks").iterdir() if path.is_dir()] == []
    assert tasks.load("movie-sentiment").counts["rows read"] == 120


def test_damaged_cache_is_named(raw: Path, tmp_path: Path) -> None:
    tasks.load("movie-sentiment")
    (stored,) = (path for path in (tmp_path / "home" / "tasks").iterdir() if path.is_dir())
    for damaged in (stored / "counts.json", stored / "dev" / "data-00000-of-00001.arrow"):
        content = damaged.read_bytes()
        damaged.write_bytes(content[: len(content) // 2])
        with pytest.raises(AssetError, match=rf"{stored.name} is damaged: delete that folder"):
            tasks.load("movie-sentiment")
        damaged.write_bytes(content)
    assert tasks.load("movie-sentiment").counts["rows read"] == 120


def test_a_second_process_waits_for_the_first(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"""
import pathlib, time
from instructlab_utils import cache, tasks

from instructlab_utils import cache
cache.folder = lambda name: pathlib.Path({str(raw)!r})
cache.home = lambda: pathlib.Path({str(tmp_path / "home")!r})
def slowly(*given, store=tasks._store):
    print("building", flush=True)
    time.sleep(0.5)
    store(*given)
tasks._store = slowly
print(len(tasks.load("movie-sentiment").splits["train"]))
"""
    monkeypatch.setattr(tasks, "_store", lambda *_: pytest.fail("both processes built the task"))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "building\n"
        here = tasks.load("movie-sentiment")
        assert other.stdout.readline() == f"{len(here.splits['train'])}\n"
    assert other.returncode == 0


# --- samples -----------------------------------------------------------------------------------------------------


def labelled(sizes: tuple[int, ...]):
    from datasets import Dataset

    rows = [{"id": f"{label}-{i}", "label": label} for label, size in enumerate(sizes) for i in range(size)]
    return Dataset.from_list(rows)


@pytest.mark.parametrize("sizes", [(500, 500), (700, 300), (211, 190, 230, 205, 164)])
def test_subsample_is_stratified_and_nested(sizes: tuple[int, ...]) -> None:
    dataset = labelled(sizes)
    larger: list[str] = tasks.subsample(dataset, 800, 3)["id"][:]
    for n in (10, 50, 200, 800):
        sample = tasks.subsample(dataset, n, 3)
        assert sample["id"][:] == larger[:n]
        assert len(set(sample["id"])) == n
        counted = Counter(sample["label"])
        for label, size in enumerate(sizes):
            assert abs(counted[label] - n * size / sum(sizes)) <= 1


def test_subsample_depends_on_the_seed_but_not_on_the_order_of_the_rows() -> None:
    dataset = labelled((60, 40))
    sample = tasks.subsample(dataset, 20, 0)["id"][:]
    assert tasks.subsample(dataset.select(range(99, -1, -1)), 20, 0)["id"][:] == sample
    assert tasks.subsample(dataset, 20, 0)["id"][:] == sample
    assert tasks.subsample(dataset, 20, 1)["id"][:] != sample
    first = min((i for i in range(60)), key=lambda i: hashlib.sha256(f"0:0-{i}".encode()).hexdigest())
    assert f"0-{first}" == next(key for key in sample if key.startswith("0-"))


@pytest.mark.parametrize("n", [0, -1, 101, 5.0, "5"])
def test_subsample_refuses_what_it_cannot_take(n: object) -> None:
    with pytest.raises(DataError, match="choose an integer from 1 to 100, the number of rows"):
        tasks.subsample(labelled((60, 40)), n, 0)  # type: ignore[arg-type]


def test_disjoint_gives_every_seed_its_own_rows_and_keeps_them_when_seeds_are_added() -> None:
    dataset, seeds = labelled((300, 150, 90)), [7, 3, 11, 0]
    taken = {seed: tasks.disjoint(dataset, 90, seed, seeds)["id"][:] for seed in seeds}
    assert all(len(set(ids)) == 90 for ids in taken.values())
    assert len(set().union(*taken.values())) == 4 * 90
    assert taken[3] == tasks.disjoint(dataset, 90, 3, [7, 3, 11, 0, 5, 6])["id"][:]
    assert taken[7] == tasks.disjoint(dataset, 90, 0, 2)["id"][:]  # the place in the list counts
    assert taken[7] == tasks.disjoint(dataset.select(range(539, -1, -1)), 90, 7, seeds)["id"][:]
    for ids in taken.values():
        counted = Counter(key[0] for key in ids)
        assert all(abs(counted[str(i)] - 90 * size / 540) <= 2 for i, size in enumerate((300, 150, 90)))


def test_disjoint_shares_few_groups_between_seeds() -> None:
    from datasets import Dataset

    rows = [{"id": f"{i}", "group": f"article {i // 10}"} for i in range(400)]
    parts = [set(tasks.disjoint(Dataset.from_list(rows), 100, seed, 4)["group"]) for seed in range(4)]
    assert all(len(one & two) <= 1 for one, two in combinations(parts, 2))


@pytest.mark.parametrize(
    ("n", "seed", "seeds", "message"),
    [
        (30, 0, 4, "100 rows cannot give 4 seeds 30 rows each .* suffice for 3 seeds, or for 25 rows a seed"),
        (30, 5, 3, r"seed 5 is not one of the seeds \[0, 1, 2\]"),
        (30, 1, [1, 1], "each named once"),
        (0, 1, [1], "choose an integer from 1 to 100"),
        (2.5, 1, [1], "choose an integer from 1 to 100"),
    ],
)
def test_disjoint_refuses_what_it_cannot_give(n, seed, seeds, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        tasks.disjoint(labelled((60, 40)), n, seed, seeds)
    assert "\n" not in str(caught.value)


# --- the table of tasks ------------------------------------------------------------------------------------------


TABLE = """
[asset.tiny]
licence = "Free."
[task.quiz]
kind = "choice"
reader = "choices"
asset = "tiny"
files = ["quiz.json"]
metric = "accuracy"
group = "a question"
about = "made by a test"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[task.quiz]", "[task.quiz", "not valid TOML .*line"),
        ("[asset.tiny]", "[data]\n[asset.tiny]", "'data' is missing or unknown"),
        ('about = "made by a test"', "", "the key 'task.quiz.about' is missing; add it"),
        ("about =", "colour = 1\nabout =", "unknown key 'task.quiz.colour'; remove it"),
        ('files = ["quiz.json"]', "files = 3", "task.quiz.files: input should be .*, not 3"),
        ('files = ["quiz.json"]', "files = []", "task.quiz.files: name one file"),
        (
            'reader = "choices"',
            'reader = "choises"',
            "task.quiz.reader: .*'choises', did you mean 'choices'?",
        ),
        ('kind = "choice"', 'kind = "qa"', "task.quiz.kind: 'qa', but the reader 'choices' gives 'choice'"),
        ("about =", 'labels = ["a"]\nabout =', "task.quiz.labels: name them for a classification"),
        ('licence = "Free."', "licence = 3", "asset.tiny.licence: .*, not 3"),
    ],
)
def test_a_mistake_in_the_table_is_one_sentence(project: Path, old: str, new: str, message: str) -> None:
    assert old in TABLE
    (project / "data" / "tasks.toml").write_text(TABLE.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        tasks.tables()
    assert "tasks.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_label_that_the_table_does_not_name_is_told(raw: Path) -> None:
    (raw / "bbcnews" / "data" / "sports").rename(raw / "bbcnews" / "data" / "weather")
    with pytest.raises(ConfigError, match="task.bbc-topics.labels: the files hold 'weather'; name it there"):
        tasks.load("bbc-topics")


def test_a_task_of_a_known_kind_is_a_table_and_no_code(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "data" / "tasks.toml").write_text(TABLE, encoding="utf-8")
    pinned = '[[asset]]\nname = "tiny"\nlicence = "CC0"\ncitation = "a test"\n'
    (project / "data" / "assets.toml").write_text(pinned, encoding="utf-8")
    rows = [{"input": f"question {i}", "target_scores": {"yes": i % 2, "no": 1 - i % 2}} for i in range(40)]
    (project / "quiz.json").write_text(json.dumps({"examples": rows}), encoding="utf-8")
    monkeypatch.setattr(cache, "folder", lambda name: project)
    monkeypatch.setattr(cache, "home", lambda: tmp_path / "home")
    task = tasks.load("quiz")
    assert (tasks.names(), task.kind, task.licence) == (["quiz"], "choice", "CC0")
    assert sum(len(part) for part in task.splits.values()) == 40


# --- the real tasks and their cards ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_real_task_is_large_enough_and_clean(name: str) -> None:
    task = tasks.load(name)
    sizes = {split: len(part) for split, part in task.splits.items()}
    print(name, sizes)
    assert sizes["train"] >= 800 and sizes["dev"] >= 200 and sizes["test"] >= 400
    seen: dict[str, dict[str, str]] = {"id": {}, "group": {}}
    for split, part in task.splits.items():
        assert set(part["label"]) == set(range(len(task.labels)))
        assert part["id"][:] == [tasks.content_id(text) for text in part["text"]]
        assert {tasks.split_of(group) for group in part["group"]} == {split}
        for column, where in seen.items():
            assert all(where.setdefault(key, split) == split for key in part[column])
    assert len(seen["id"]) == sum(sizes.values())


def digests(task: tasks.Task) -> dict[str, object]:
    """What tests/splits.json holds of a task: of each split the ids in order and all rows; and one sample."""

    def sha(lines: list[str], end: str = "") -> str:
        return hashlib.sha256(("\n".join(lines) + end).encode()).hexdigest()

    found: dict[str, object] = {}
    for split, part in task.splits.items():
        rows = [json.dumps(row, sort_keys=True) for row in part]
        found[split] = {"rows": len(part), "ids": sha(part["id"][:]), "json": sha(rows, "\n")}
    first = next(iter(task.splits.values()))
    return found | {"sample": sha(tasks.subsample(first, min(50, len(first)), 0)["id"][:])}


# If one of them changes, every published number of that task is void: that needs new runs, not new values in the file.
SPLITS = json.loads((ROOT / "tests" / "splits.json").read_text(encoding="utf-8"))
ONE_PER_READER = {told.reader: name for name, told in reversed(tasks.tables().items())}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(tasks.names()))
def test_splits_and_samples_are_where_they_always_were(name: str) -> None:
    found = digests(tasks.load(name))
    assert found == SPLITS.get(name), (
        f"a new task? its line in tests/splits.json: {json.dumps({name: found})}"
    )


@pytest.mark.parametrize("name", ["tweet-sentiment", *(ONE_PER_READER[reader] for reader in READ_AGAIN)])
def test_splits_made_anew_from_the_raw_files_are_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache.folder(tasks.asset_of(name))
    monkeypatch.setattr(cache, "folder", lambda _: folder)
    monkeypatch.setattr(cache, "home", lambda: tmp_path)
    assert digests(tasks.load(name)) == SPLITS[name]


@pytest.mark.parametrize("name", ["product-sentiment", "editorial-sentiment"])
def test_no_real_article_is_in_two_splits(name: str) -> None:
    where = {text: split for split, part in tasks.load(name).splits.items() for text in part["text"]}
    articles: dict[str, set[str]] = {}
    for row in tasks.read(name):
        if row.text in where:
            articles.setdefault(row.article, set()).add(where[row.text])
    assert len(articles) > 200
    assert all(len(splits) == 1 for splits in articles.values())


def test_no_real_near_duplicate_is_in_two_splits() -> None:
    """Exact, by an inverted index of all shingles, not by the MinHash that made the groups."""
    rows = [
        (split, tasks.shingles(text))
        for split, part in tasks.load("tweet-sentiment").splits.items()
        for text in part["text"]
    ]
    holders: dict[str, list[int]] = {}
    for i, (_, shingles) in enumerate(rows):
        for shingle in shingles:
            holders.setdefault(shingle, []).append(i)
    shared = Counter(pair for same in holders.values() for pair in combinations(same, 2))
    close = [(i, j) for (i, j), n in shared.items() if n >= 0.8 * len(rows[i][1] | rows[j][1])]
    assert len(close) > 100
    assert all(rows[i][0] == rows[j][0] for i, j in close)


def test_card_is_what_the_data_say() -> None:
    root = Path(__file__).parents[1]
    text = (root / "data" / "cards" / "product-sentiment.md").read_text(encoding="utf-8")
    assert text == cards.render("product-sentiment"), "run `python -m instructlab_repro.pages.cards`"
    for name in ("e2e-slots", "squad-reddit", "social-support"):
        assert (root / "data" / "cards" / f"{name}.md").read_text(encoding="utf-8") == cards.render(name)


def test_every_task_has_a_card_with_short_examples() -> None:
    folder = Path(__file__).parents[1] / "data" / "cards"
    found = [
        path for path in folder.glob("*.md") if path.stem != "instructions"
    ]  # tests/test_instructions.py has it
    assert sorted(path.stem for path in found) == sorted(tasks.names())
    for path in found:
        text = path.read_text(encoding="utf-8")
        examples = text.split("## Examples")[1].split("## Known problems")[0]
        lines = [line[2:].rsplit(" (", 1)[0] for line in examples.splitlines() if line.startswith("- ")]
        assert len(lines) == 3 * (len(tasks.table(path.stem).labels) or 1)
        assert all(0 < len(line) <= cards.SHOWN for line in lines)
        for split, part in tasks.load(path.stem).splits.items():
            assert f"| {split} | {len(part):,} |" in text


def test_shorten_keeps_to_one_short_line() -> None:
    assert cards.shorten("a `b`\nc") == "a 'b' c"
    assert cards.shorten("word " * 30) == "word " * 14 + "word…"
    assert len(cards.shorten("x" * 500)) == cards.SHOWN


def test_histogram_counts_every_rating_once() -> None:
    ratings = [-4, -3, -1, -0.5, 0, 0.5, 0.51, 1, 3, 4]
    bins = cards.histogram([Row("a", float(rating)) for rating in ratings])
    assert sum(number for _, _, number in bins) == len(ratings)
    assert {(low, high): n for low, high, n in bins}[(-0.5, 0.5)] == 3


def test_check_names_the_card_that_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cards, "find_root", lambda: tmp_path)
    monkeypatch.setattr(cards, "render", lambda name: f"# {name}\n")
    assert cards.main(["--check"]) == 1
    assert not (tmp_path / "data").exists()
    assert cards.main([]) == 0
    assert cards.main(["--check"]) == 0
    (tmp_path / "data" / "cards" / "bbc-topics.md").write_text("# edited by hand\n", encoding="utf-8")
    capsys.readouterr()
    assert cards.main(["--check"]) == 1
    assert "out of date: bbc-topics; run `python -m instructlab_repro.pages.cards`" in capsys.readouterr().out
