"""Lesson 27: Chinese texts read, characters counted, an encoder of characters, masks, names; each against a library."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lessons import defined
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import BertForMaskedLM, BertForTokenClassification, DataCollatorForLanguageModeling

from instructlab_utils import hanzi, tagging, training
from instructlab_utils.errors import DataError, ParameterError
from instructlab_utils.tasks import newspaper, readers

IDS = hanzi.vocabulary(["好差不很店书的了，。" * 3], 3)
SIZE = len(IDS) + len(hanzi.SPECIAL)
TAGS = ["O", "B-nr", "I-nr", "B-ns", "I-ns"]
CHINESE = st.text(st.sampled_from("好差不很店书的了，。!a５5 \u3000\n𠮷"), max_size=20)


# --- what is read ----------------------------------------------------------------------------------------------------


def rows_of(reader, path: Path, *texts: str | bytes, names: tuple[str, ...] = ("neg.txt", "pos.txt")):
    files, counts = [], Counter()
    for name, text in zip(names, texts, strict=False):
        (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        files.append(path / name)
    return list(reader(files, counts)), counts


def test_lines_get_the_label_of_their_file(tmp_path):
    rows, counts = rows_of(readers.lines, tmp_path, "这个 酒店\u2028不干净\r\n:(\n\n", "非常好的一本书")
    assert [(row.label, row.text) for row in rows] == [("neg", "这个 酒店 不干净"), ("pos", "非常好的一本书")]
    assert counts == {"lines left out: hardly a letter": 2}


def test_newspaper_sentences_are_cut_and_names_tagged(tmp_path):
    text = "王/nr 小明/nr 在/p 河南省/ns 滑县/ns 。/w 新华社/nt 记者/n\n\n３/m 。/w\n"
    rows, counts = rows_of(newspaper.annotated, tmp_path, text)
    said = [[(k, "".join(row["tokens"][a:b])) for k, a, b in tagging.spans_of(row["tags"])] for row in rows]
    assert said == [[("nr", "王小明"), ("ns", "河南省"), ("ns", "滑县")], [("nt", "新华社")]]
    assert {row["group"] for row in rows} == {"王小明在河南省滑县。新华社记者"}
    assert counts == {"sentences left out: hardly a letter": 1}


def test_twenty_paragraphs_share_a_group(tmp_path):
    text = "\n".join(f"第{chr(0x4E00 + i)}段文章/n" for i in range(45))
    rows, _ = rows_of(newspaper.annotated, tmp_path, text)
    assert [len(list(rows)) for rows in (rows[:20], rows[20:40], rows[40:])] == [20, 20, 5]
    assert len({row["group"] for row in rows[:20]}) == 1 and len({row["group"] for row in rows}) == 3


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("王 小明", ["王小明"]),
        ("王 小明 李 红 张 三", ["王小明", "李红", "张三"]),
        ("欧阳 小明", ["欧阳小明"]),
        ("马克思 恩格斯", ["马克思", "恩格斯"]),
        ("李 ", ["李"]),
        ("李 谢尔盖耶夫", ["李谢尔盖耶夫"]),
    ],
)
def test_surnames_are_joined(words, want):
    assert [w for w, _ in newspaper.persons([(w, "nr") for w in words.split()])] == want


def test_other_kinds_are_not_joined():
    words = [("河", "ns"), ("滑县", "ns"), ("王", "nr"), ("在", "p"), ("红", "nr")]
    assert newspaper.persons(words) == words and newspaper.persons([]) == []


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (readers.lines, b"", "neg.txt is empty: delete"),
        (readers.lines, b" \n ", "is empty"),
        (readers.lines, "好的书店\n".encode() + b"\xff", "line 2: byte 0xff is not UTF-8"),
        (newspaper.annotated, b"", "is empty"),
        (newspaper.annotated, "中国/ns 人民", "line 1: '人民': write word/tag"),
        (newspaper.annotated, "中国/ns\n/n", "line 2: '/n': write word/tag"),
        (newspaper.annotated, "中国/1", "the tag in letters"),
        (newspaper.annotated, b"\xc0", "is not UTF-8"),
    ],
)
def test_a_malformed_file_is_one_sentence(tmp_path, reader, text, message):
    with pytest.raises(DataError, match=message) as caught:
        rows_of(reader, tmp_path, text)
    assert "\n" not in str(caught.value)


# --- characters ------------------------------------------------------------------------------------------------------


def library() -> Tokenizer:
    found = Tokenizer(WordLevel(dict(zip(hanzi.SPECIAL, range(4), strict=True)) | IDS, unk_token="<unknown>"))
    split = pre_tokenizers.Split(Regex("."), "isolated")
    found.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])
    return found


@settings(max_examples=60, deadline=None)
@given(CHINESE, st.integers(1, 30))
def test_the_encoding_is_that_of_tokenizers(text, window):
    found = hanzi.encode(text, IDS, window)
    assert found == [hanzi.OPEN, *library().encode(text).ids[:window]]
    assert hanzi.encode(list(text), IDS, 99)[1:] == [IDS.get(c, hanzi.UNKNOWN) for c in text]


def test_the_vocabulary_goes_by_frequency_and_refuses_nothing():
    assert hanzi.vocabulary(["好好 差", "差好贵"], 2) == {"好": 4, "差": 5}
    assert list(hanzi.vocabulary(["乙甲"], 1)) == sorted("甲乙")
    with pytest.raises(DataError, match="no character stands 3 times"):
        hanzi.vocabulary(["好差"])
    with pytest.raises(TypeError, match="must be a list of texts"):
        hanzi.vocabulary("好好好")


def test_examples_have_a_target_for_each_character():
    rows = [{"tokens": list("王红在京"), "tags": ["B-nr", "I-nr", "O", "B-ns"]}]
    (example,) = hanzi.tagged(rows, IDS, TAGS, 3)
    assert example["labels"] == [-100, 1, 2, 0] and len(example["input_ids"]) == 4
    (example,) = hanzi.classified([{"text": "好 差", "label": 1}], IDS, 9)
    assert example == {"input_ids": [hanzi.OPEN, IDS["好"], IDS["差"]], "labels": 1}
    for bad in ({"tokens": ["王红"], "tags": ["B-nr"]}, {"tokens": ["王"], "tags": []}):
        with pytest.raises(DataError, match="row 0: .*give one tag to each character"):
            hanzi.tagged([bad], IDS, TAGS, 3)


def test_the_lessons_tf_idf_is_scikit_learns():
    ours = defined("27", "grams", "tf_idf", Counter=Counter, math=math)
    rng = random.Random(0)
    texts = ["".join(rng.choices("好差不很店书", k=rng.randrange(1, 9))) for _ in range(30)]
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    x = vectors.fit_transform(texts)
    for i, row in enumerate(ours.tf_idf(texts)):
        assert len(row) == x[i].nnz
        for w, value in row.items():
            assert abs(x[i, vectors.vocabulary_[w]] - value) < 1e-12


# --- the encoder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def net():
    return hanzi.network(hanzi.MeanClassifier, SIZE, 2, 0, width=16, window=12).eval()


def test_the_convolution_is_a_sum_over_neighbours(net):
    embeddings, ids = net.bert.embeddings, torch.tensor([[2, 5, 6, 7, 8]])
    e = embeddings.inner(input_ids=ids)[0]
    padded = torch.nn.functional.pad(e, (0, 0, 2, 2))
    W, b = embeddings.convolution.weight, embeddings.convolution.bias
    a = b + sum(padded[k : k + 5] @ W[:, :, k].T for k in range(5))
    want = torch.nn.functional.layer_norm(
        e + torch.nn.functional.gelu(a), (16,), embeddings.norm.weight, embeddings.norm.bias
    )
    assert (embeddings(input_ids=ids)[0] - want).abs().max() < 1e-5


def test_padding_changes_nothing(net):
    short = torch.tensor([[2, 5, 6, 7]])
    long = torch.cat([short, torch.zeros(1, 5, dtype=torch.long)], 1)
    with torch.no_grad():
        a, b = (net(ids, attention_mask=(ids != 0).long()).logits for ids in (short, long))
    assert (a - b).abs().max() < 1e-5
    with torch.no_grad():  # a text without a character has a mean of nothing, and no NaN
        assert net(torch.tensor([[2]]), attention_mask=torch.ones(1, 1)).logits.isfinite().all()


def test_the_mean_is_that_of_the_characters(net):
    ids = torch.tensor([[2, 5, 6, 0], [2, 7, 8, 9]])
    mask = (ids != 0).long()
    with torch.no_grad():
        states = net.bert(ids, attention_mask=mask).last_hidden_state
        want = net.classifier(torch.stack([states[0, 1:3].mean(0), states[1, 1:].mean(0)]))
        assert (net(ids, attention_mask=mask).logits - want).abs().max() < 1e-6


def test_a_trunk_is_carried_over_and_another_is_refused(net):
    trunk = hanzi.network(BertForMaskedLM, SIZE, 2, 7, width=16, window=12)
    assert trunk.cls.predictions.decoder.weight is trunk.bert.embeddings.word_embeddings.weight  # tied
    for head in (hanzi.MeanClassifier, BertForTokenClassification):
        found = hanzi.continued(head, trunk, SIZE, 2, 0, width=16, window=12)
        own, theirs = found.bert.state_dict(), trunk.bert.state_dict()
        assert all(torch.equal(own[key], theirs[key]) for key in theirs)
    fresh = hanzi.continued(hanzi.MeanClassifier, None, SIZE, 2, 0, width=16, window=12)
    assert all(map(torch.equal, fresh.state_dict().values(), net.state_dict().values()))
    with pytest.raises(DataError, match="the trunk is another network"):
        hanzi.continued(hanzi.MeanClassifier, trunk, SIZE, 2, 0, width=8, window=12)


def test_training_learns_what_stands_side_by_side():
    rng, rows = random.Random(0), []
    for _ in range(200):
        label = rng.randrange(2)
        words = [["不好", "差"], ["不差", "好"]][label]
        rng.shuffle(words)
        rows.append({"text": "店" * rng.randrange(4) + "，".join(words), "label": label})
    net = hanzi.network(hanzi.MeanClassifier, SIZE, 2, 0, width=32, window=12)
    examples = hanzi.classified(rows, IDS, 12)
    training.train(net, examples[:150], steps=60, learning_rate=3e-3, pad_id=hanzi.PAD, batch_size=32)
    z = training.predict(net, examples[150:], hanzi.PAD)
    assert (z.argmax(1) == torch.tensor([e["labels"] for e in examples[150:]])).double().mean() > 0.95


# --- masks -----------------------------------------------------------------------------------------------------------


def test_masks_have_the_shares_of_the_paper_and_of_the_library():
    ids = torch.randint(4, SIZE, (300, 100), generator=torch.Generator().manual_seed(1))
    ids[:, 0], ids[:, -5:] = hanzi.OPEN, hanzi.PAD
    inputs, targets = hanzi.hide(ids, SIZE, torch.Generator().manual_seed(0))
    asked = targets != -100
    assert torch.equal(targets[asked], ids[asked]) and torch.equal(inputs[~asked], ids[~asked])
    assert not asked[:, 0].any() and not asked[:, -5:].any()
    n = asked.sum().item()
    shares = {
        "asked": n / (300 * 94),
        "hidden": (inputs[asked] == hanzi.MASK).sum().item() / n,
        "kept": (inputs[asked] == ids[asked]).sum().item() / n,
    }
    told = DataCollatorForLanguageModeling(tokenizer=None, mlm=False)  # its defaults are the paper's
    wanted = {"asked": told.mlm_probability, "hidden": told.mask_replace_prob, "kept": 0.1 + 0.1 / (SIZE - 4)}
    for name, share in shares.items():
        assert abs(share - wanted[name]) < 0.02, name
    assert inputs.max() < SIZE


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_without_sense_is_refused(rate):
    with pytest.raises(ParameterError, match="rate of masking"):
        hanzi.hide(torch.tensor([[4]]), SIZE, torch.Generator(), rate)


def test_the_masked_loss_is_the_librarys():
    net = hanzi.network(BertForMaskedLM, SIZE, 2, 0, width=16, window=12, dropout=0.0).eval()
    pieces = hanzi.windows(["好差不很店书的了" * 3, "好差不", "好"], IDS, 12)
    assert [len(p) for p in pieces] == [13, 13, 4]
    examples = hanzi.masked_examples(pieces * 8, SIZE, 0)
    assert [len(e["labels"]) for e in examples] == [len(p) for p in pieces * 8]
    batch = training.collate_tokens(examples, hanzi.PAD)
    assert abs(hanzi.masked_losses(net, batch).mean() - net(**batch).loss) < 1e-5
    history = training.train(
        net, examples, steps=30, learning_rate=5e-3, pad_id=0, batch_size=16, objective=hanzi.masked_losses
    )
    assert sum(history.losses[-5:]) < sum(history.losses[:5])


# --- names -----------------------------------------------------------------------------------------------------------


def row_of(line: str) -> dict[str, list[str]]:
    """王小明/nr 在/O → tokens and tags."""
    words = newspaper.persons([tuple(item.split("/")) for item in line.split()])
    tags = [
        "O" if kind == "O" else f"{'B' if i == 0 else 'I'}-{kind}"
        for word, kind in words
        for i in range(len(word))
    ]
    return {"tokens": [c for word, _ in words for c in word], "tags": tags}


def test_the_dictionary_takes_the_longest_name():
    known = hanzi.entities([row_of("北京/ns 在/O 北京大学/nt"), row_of("王小/nr")])
    assert known == {("ns", "北京"), ("nt", "北京大学"), ("nr", "王小")}
    assert hanzi.look_up(list("北京大学在北京"), known) == row_of("北京大学/nt 在/O 北京/ns")["tags"]
    assert hanzi.look_up(list("王小王小"), known) == ["B-nr", "I-nr"] * 2
    assert hanzi.look_up([], known) == [] and hanzi.look_up(list("北京"), []) == ["O", "O"]
    assert hanzi.look_up(list("京"), [("ns", "京"), ("nr", "京")]) == ["B-nr"]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from("甲乙丙"), max_size=12),
    st.sets(st.sampled_from(["甲", "甲乙", "乙丙甲", "丙丙"])),
)
def test_the_dictionary_is_a_regular_expression(tokens, found):
    import re

    known = {("ns", name) for name in found}
    want = ["O"] * len(tokens)
    if found:
        for match in re.finditer("|".join(sorted(found, key=len, reverse=True)), "".join(tokens)):
            want[match.start() : match.end()] = ["B-ns", *["I-ns"] * (match.end() - match.start() - 1)]
    assert hanzi.look_up(tokens, known) == want


def test_a_window_is_the_same_wherever_it_stands():
    first = hanzi.around(list("王小明"))
    assert len(first) == 3 and all(len(features) == 9 for features in first)
    assert {"0:王", "-1:<edge>", "0:王小", "1:小明"} <= set(first[0])
    middle = hanzi.around(list("甲乙王小明丙丁"))[3]
    assert set(middle) == {"-2:乙", "-1:王", "0:小", "1:明", "2:丙", "-2:乙王", "-1:王小", "0:小明", "1:明丙"}
    assert hanzi.around([]) == [] and len(hanzi.around(["王"], 0)[0]) == 1


def test_new_names_are_counted_by_kind_and_both_ends():
    rows = [row_of("王小明/nr 在/O 北京/ns"), row_of("北京/ns 李红/nr")]
    known = {("ns", "北京"), ("ns", "王小明")}
    right = [row["tags"] for row in rows]
    assert hanzi.found_new(rows, right, known) == (2, 2) and hanzi.found_new(rows, right, set()) == (4, 4)
    late = [["O", "B-nr", "I-nr", "O", "B-ns", "I-ns"], ["B-ns", "I-ns", "B-ns", "I-ns"]]
    assert hanzi.found_new(rows, late, known) == (0, 2) and hanzi.found_new(rows, late, set()) == (2, 4)
    with pytest.raises(ValueError):
        hanzi.found_new(rows, right[:1], known)
