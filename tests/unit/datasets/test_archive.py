"""Archives that anybody may have made: good ones are unpacked as they are, and hostile ones reach nothing."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vizsla.datasets import archive
from vizsla.datasets.build import build
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import InvalidInput

Draw = Callable[..., Path]


def _zip(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def _tar(path: Path, *entries: tuple[tarfile.TarInfo | str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for name, data in entries:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = info.size or len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def _special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _with_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GOOD = (("dogs/husky/1.png", b"one"), ("dogs/husky/2.png", b"two" * 1000), ("dogs/poodle/1.png", b""))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: _zip(path, *GOOD),
        lambda path: _zip(path, *GOOD, compression=zipfile.ZIP_DEFLATED),
        lambda path: _zip(path, *GOOD, compression=zipfile.ZIP_LZMA),
        lambda path: _tar(path, *GOOD),
        lambda path: _tar(path, *GOOD, mode="w:gz"),
        lambda path: _tar(path, *GOOD, mode="w:bz2"),
        lambda path: _tar(path, *GOOD, mode="w:xz"),
        lambda path: _tar(path, *((f"./{name}", data) for name, data in GOOD)),
    ],
    ids=["zip", "deflated", "lzma", "tar", "gz", "bz2", "xz", "dotted"],
)
def test_good_archives_are_unpacked(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "archive.bin")  # its kind is told by its content
    told: list[tuple[int, int]] = []
    unpacked = archive.unpack(path, tmp_path / "out", lambda done, total: told.append((done, total)))
    assert _files(tmp_path / "out") == dict(GOOD)
    assert unpacked == (3, sum(len(data) for _, data in GOOD))
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert archive.pictures_root(tmp_path / "out") == tmp_path / "out" / "dogs"


ENTRIES = [
    ("../evil.png", "leads out of its folder"),
    ("husky/../../evil.png", "leads out of its folder"),
    ("/etc/evil.png", "is absolute"),
    ("C:/evil.png", "is absolute"),
    ("C:evil.png", "is absolute"),
    ("husky\\1.png", "has a backslash"),
    ("..\\evil.png", "has a backslash"),
    ("husky/a\nb.png", "has a control character"),
    ("husky/" + "x" * 256, "is too long"),
    ("/".join("x" * 20), "more than 16 folders deep"),
    ("husky/more.zip", "an archive in the archive"),
    ("husky/more.TAR.GZ", "an archive in the archive"),
]


@pytest.mark.parametrize("make", [_zip, _tar])
@pytest.mark.parametrize(("name", "said"), ENTRIES, ids=[repr(name[:20]) for name, _ in ENTRIES])
def test_names_that_lead_elsewhere_are_refused(make: Callable[..., Path], name: str, said: str, tmp_path: Path) -> None:
    _refused(make(tmp_path / "a", ("husky/1.png", b"x"), (name, b"x")), said, archive.shown(name))
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/etc/evil.png").exists()


def _refused(path: Path, said: str, where: str) -> InvalidInput:
    out = path.parent / "out"
    with pytest.raises(InvalidInput, match=said) as caught:
        archive.unpack(path, out)
    assert where in caught.value.where
    assert caught.value.remedy
    return caught.value


PAIRS = [
    (("h/1.png", "h/1.png"), "there twice"),
    (("h/1.png", "h/./1.png"), "there twice"),
    (("h/1.png", "H/2.png"), "small and large letters"),
    (("h/a.png", "h/A.png"), "small and large letters"),
    (("h/\u00e9.png", "h/e\u0301.png"), "small and large letters"),
    (("h/stra\u00dfe.png", "h/STRASSE.png"), "small and large letters"),
    (("h", "h/1.png"), "a folder and a file at once"),
    (("h/1.png", "h"), "a folder and a file at once"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [_zip, _tar])
@pytest.mark.parametrize(("names", "said"), PAIRS, ids=[ascii(names) for names, _ in PAIRS])
def test_names_that_are_one_file_elsewhere_are_refused(
    make: Callable[..., Path], names: tuple[str, str], said: str, tmp_path: Path
) -> None:
    _refused(make(tmp_path / "a", *((name, b"x") for name in names)), said, archive.shown(names[1]))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "no plain file"),
        (tarfile.BLKTYPE, "no plain file"),
        (tarfile.FIFOTYPE, "no plain file"),
    ],
)
def test_links_and_devices_of_a_tar_are_refused(kind: bytes, said: str, tmp_path: Path) -> None:
    _refused(_tar(tmp_path / "a", (_special("husky/link", kind, "/etc/passwd"), b"")), said, "husky/link")


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    """The old trick: a link to a folder elsewhere, then a file below it."""
    path = _tar(tmp_path / "a", (_special("h", tarfile.SYMTYPE, str(tmp_path)), b""), ("h/evil.png", b"x"))
    _refused(path, "is a link", "h")
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize(
    ("mode", "said"),
    [(stat.S_IFLNK | 0o777, "is a link"), (stat.S_IFCHR | 0o600, "no plain file"), (stat.S_IFIFO, "no plain file")],
)
def test_links_and_devices_of_a_zip_are_refused(mode: int, said: str, tmp_path: Path) -> None:
    _refused(_zip(tmp_path / "a", (_with_mode("husky/link", mode), b"/etc/passwd")), said, "husky/link")


def test_set_user_id_and_write_for_all_are_not_kept(tmp_path: Path) -> None:
    info = tarfile.TarInfo("h/1.png")
    info.mode = 0o6777
    archive.unpack(_tar(tmp_path / "a", (info, b"x")), tmp_path / "out")
    assert (tmp_path / "out/h/1.png").stat().st_mode & 0o7111 == 0


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a", ("husky/1.png", b"secret"))
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the file's header, and in the list of contents
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    _refused(path, "is encrypted", "husky/1.png")


def test_a_nul_does_not_end_a_name(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a", ("h/1.png_.exe", b"x"))
    path.write_bytes(path.read_bytes().replace(b"h/1.png_.exe", b"h/1.png\0.exe"))
    _refused(path, "control character", "h/1.png")


@pytest.mark.parametrize("mode", ["zip", "w:gz", "w:bz2", "w:xz"])
def test_bombs_do_not_go_off(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FREE_OF_RATIO_BYTES", 5_000_000)
    zeros = bytes(2**20)
    if mode == "zip":
        with (
            zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as file,
            file.open("husky/bomb.bmp", "w") as inner,
        ):
            for _ in range(30):
                inner.write(zeros)
    else:
        _tar(tmp_path / "a", ("husky/bomb.bmp", bytes(30 * 2**20)), mode=mode)
    _refused(tmp_path / "a", "grows to more than 100 times its size", "husky/bomb.bmp")
    assert sum(len(data) for data in _files(tmp_path / "out").values()) <= 20e6


def test_a_bomb_that_lies_about_its_size_is_cut_off(tmp_path: Path) -> None:
    """An entry that says it has ten bytes."""
    size = 150 * 2**20
    path = _zip(tmp_path / "a", ("h/1.bmp", bytes(size)), compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), (10).to_bytes(4, "little")))
    _refused(path, "damaged|grows", "h/1.bmp")
    assert sum(len(content) for content in _files(tmp_path / "out").values()) <= 10


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    """A few bytes that say that they are a terabyte of zeros."""
    header = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "h/1.bmp",
        "GNU.sparse.realsize": "9" * 12,
    }
    info = tarfile.TarInfo("h/1.bmp")
    info.pax_headers = header
    body = b"1\n999999999999\n0\n".ljust(512, b"\0")
    with tarfile.open(tmp_path / "a", "w", format=tarfile.PAX_FORMAT) as file:
        info.size = len(body)
        file.addfile(info, io.BytesIO(body))
    _refused(tmp_path / "a", "no plain file", "h/1.bmp")


def test_headers_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**32
    (tmp_path / "a").write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT)))
    _refused(tmp_path / "a", "bytes of names and headers", "beginning")


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 10)
    path = _zip(tmp_path / "a", *((f"h/{number}.png", b"") for number in range(10)))
    _refused(path, "more than 10 files and folders", "h/9.png")
    (tmp_path / "deep").mkdir()
    deep = _tar(tmp_path / "deep" / "a", *((f"{number}/a/b/c/d", b"") for number in range(4)))
    _refused(deep, "more than 10 files and folders", "2/a/b/c/d")


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:xz"])
def test_archives_that_were_cut_short_are_refused(mode: str, tmp_path: Path) -> None:
    entries = [(f"h/{number}.png", os.urandom(5000)) for number in range(5)]
    whole = _zip(tmp_path / "whole", *entries) if mode == "zip" else _tar(tmp_path / "whole", *entries, mode=mode)
    data = whole.read_bytes()
    for place, length in enumerate((600, 8 * 1024, len(data) // 2 + 7)):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "a").write_bytes(data[:length])
        _refused(folder / "a", "damaged", "")


def test_a_tar_with_a_damaged_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a", ("h/1.png", b"x" * 512), ("h/2.png", b"y" * 512))
    data = bytearray(path.read_bytes())
    data[1024 + 148] ^= 1  # the checksum of the second header
    path.write_bytes(data)
    _refused(path, "damaged", "after h/1.png")


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a", ("h/1.png", b"x" * 1000), ("h/2.png", b"y" * 1000))
    path.write_bytes(path.read_bytes().replace(b"y" * 10, b"z" * 10, 1))
    _refused(path, "damaged", "h/2.png")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"Rar!\x1a\x07\x00")
    _refused(tmp_path / "a", "no archive", "a")
    (tmp_path / "a").write_bytes(b"")
    _refused(tmp_path / "a", "no archive", "a")


def test_a_dataset_of_an_archive_is_that_of_the_folder(tmp_path: Path, draw: Draw) -> None:
    for label in ("husky", "poodle"):
        for number in range(4):
            draw(tmp_path / "dogs" / label / f"{number}.png")
    with zipfile.ZipFile(tmp_path / "dogs.zip", "w") as file:
        for path in sorted((tmp_path / "dogs").rglob("*.png")):
            file.write(path, path.relative_to(tmp_path))
        file.writestr("dogs/husky/notes.txt", "no picture")
        file.writestr("__MACOSX/dogs/._1.png", "clutter")
    spec = DatasetSpec(source=tmp_path / "dogs", width=8, height=8)
    of_folder = build(spec, tmp_path / "one", id="one", name="one", progress=lambda *_: None)
    zipped = spec.model_copy(update={"source": tmp_path / "dogs.zip"})
    of_archive = build(zipped, tmp_path / "two", id="two", name="two", progress=lambda *_: None)
    assert of_archive.fingerprint == of_folder.fingerprint
    assert (of_archive.used, of_archive.rejected) == (8, 1)
    assert of_archive.spec == zipped
    assert of_archive.origins["source"].name == "dogs.zip"
    assert of_archive.origins["source"].num_bytes == (tmp_path / "dogs.zip").stat().st_size
    assert of_folder.origins == {}
    assert not (tmp_path / "two" / "unpacked").exists()


def test_errors_speak_of_a_folder_by_its_path(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "dogs" / "husky" / "1.png")
    with pytest.raises(InvalidInput, match="one class only") as caught:
        build(DatasetSpec(source=tmp_path / "dogs"), tmp_path / "d", id="d", name="d", progress=lambda *_: None)
    assert caught.value.where == str(tmp_path / "dogs")


def test_errors_speak_of_the_archive_and_nothing_unpacked_stays(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "1.png")
    with zipfile.ZipFile(tmp_path / "dogs.zip", "w") as file:
        file.write(tmp_path / "1.png", "husky/1.png")
    spec = DatasetSpec(source=tmp_path / "dogs.zip", width=8, height=8)
    with pytest.raises(InvalidInput, match="one class only") as caught:
        build(spec, tmp_path / "one", id="one", name="one", progress=lambda *_: None)
    assert caught.value.where.startswith("dogs.zip")
    assert list((tmp_path / "one").iterdir()) == []
