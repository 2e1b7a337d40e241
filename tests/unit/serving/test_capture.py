"""Pictures that are kept for labelling: where they are put, what is deleted when, and what is not."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vizsla import files
from vizsla.errors import DiskFull
from vizsla.models.predictor import Score
from vizsla.serving import capture
from vizsla.serving.capture import Capture, Taken, captured, folder_of, kept, pictures, sweep
from vizsla.serving.spec import CaptureSpec

ALL = CaptureSpec(sample=1.0)
DAY_S = 86400.0


def _picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _taken(seed: int, label: str = "ring", kind: str = "PNG", model: str = "m") -> Taken:
    return Taken(model, "v1", _picture(seed, kind), "unsure", (Score(label, 0.4), Score("disc", 0.3)))


def _keep(folder: Path, *every: Taken, spec: CaptureSpec = ALL) -> Counter[str]:
    became: Counter[str] = Counter()
    capturing = Capture(spec, folder, lambda model, version, what: became.update([what]))
    for one in every:
        capturing.keep(one)
    capturing.close()
    return became


def test_a_picture_lies_under_its_class_as_it_came_with_what_was_said_of_it(tmp_path: Path) -> None:
    taken = [_taken(1), _taken(2, "disc", "JPEG"), _taken(3, "disc", "WEBP", "other")]
    assert _keep(tmp_path, *taken, _taken(1)) == {"kept": 3, "known": 1}
    found = {(path.parents[2].name, path.parent.name, path.suffix): path for path in pictures(tmp_path)}
    assert set(found) == {("m", "ring", ".png"), ("m", "disc", ".jpg"), ("other", "disc", ".webp")}
    ring = found["m", "ring", ".png"]
    assert ring.read_bytes() == taken[0].data
    said = json.loads((tmp_path / "m" / "said" / f"{ring.name}.json").read_text())
    assert said.pop("at")
    scores = [{"label": "ring", "probability": 0.4}, {"label": "disc", "probability": 0.3}]
    assert said.pop("folder") == "ring"
    assert said == {"format": "vizsla.captured/1", "model": "m", "version": "v1", "why": "unsure", "scores": scores}
    told = captured(tmp_path, ALL)
    assert (told.num_pictures, told.num_bytes) == (3, sum(len(one.data) for one in taken))
    assert [(one.model, one.label, one.num_pictures) for one in told.classes] == [
        ("m", "disc", 1),
        ("m", "ring", 1),
        ("other", "disc", 1),
    ]
    assert captured(tmp_path / "nowhere", ALL).num_pictures == 0


def test_why_a_picture_is_kept() -> None:
    def why(spec: CaptureSpec, probability: float) -> set[str | None]:
        capturing = Capture(spec, Path("nowhere"), lambda *_: None)
        found = {capturing.why(probability) for _ in range(200)}
        capturing.close()
        return found

    assert why(CaptureSpec(below=0.6), 0.59) == {"unsure"}
    assert why(CaptureSpec(below=0.6), 0.6) == {None}
    assert why(CaptureSpec(sample=0.5), 0.1) == {"sample", None}
    assert why(CaptureSpec(below=0.6, sample=1.0), 0.9) == {"sample"}
    assert why(CaptureSpec(below=0.6, sample=0.5), 0.1) == {"sample", "unsure"}, "the unsure are in the sample too"


@pytest.mark.parametrize(
    "label",
    ["../../up", "/root", ".hidden", "..", "", "a\0b", "a/b", "a" * 500, "ä" * 200, "con\n", "trailing. "],
)
def test_hostile_names_of_classes_lead_nowhere(tmp_path: Path, label: str) -> None:
    inside = tmp_path / "inside"
    assert _keep(inside, _taken(1, label)) == {"kept": 1}
    (path,) = pictures(inside)
    assert path.parents[3].resolve() == inside.resolve()
    assert path.parent.name == folder_of(label) != label
    assert not path.parent.name.startswith(".")
    assert [one.name for one in tmp_path.iterdir()] == ["inside"]


def test_names_of_classes_stay_where_folders_may_have_them() -> None:
    assert [folder_of(label) for label in ("ring", "n02085620-Chihuahua", "naïve café", "犬", "a b")] == [
        "ring",
        "n02085620-Chihuahua",
        "naïve café",
        "犬",
        "a b",
    ]
    assert folder_of("a/b") != folder_of("a:b"), "two classes never share a folder"


def test_what_is_old_goes_and_what_people_have_moved_stays(tmp_path: Path) -> None:
    _keep(tmp_path, *(_taken(seed) for seed in range(4)))
    now = time.time()
    old, moved, *new = sorted(kept(tmp_path))
    for one in (old, moved):
        os.utime(one.said, (now - 31 * DAY_S,) * 2)
    right = tmp_path / "m" / "pictures" / "disc" / moved.path.name
    right.parent.mkdir()
    moved.path.rename(right)
    sweep(tmp_path, ALL, now)
    assert set(pictures(tmp_path)) == {right, *(one.path for one in new)}
    assert not old.said.exists()
    # Not even when it comes again, and is taken for what people have said that it is.
    label = right.parent.name
    again = next(one for one in map(_taken, range(4)) if one.data == right.read_bytes())
    assert _keep(tmp_path, again._replace(scores=(Score(label, 0.9),))) == {"known": 1}
    sweep(tmp_path, ALL, now + 99 * DAY_S)
    assert right.exists()


def test_a_picture_that_is_taken_for_something_else_later_stays_where_it_is(tmp_path: Path) -> None:
    assert _keep(tmp_path, _taken(1, "ring"), _taken(1, "disc")) == {"kept": 1, "known": 1}
    (path,) = pictures(tmp_path)
    assert path.parent.name == "ring"


def test_the_oldest_make_room(tmp_path: Path) -> None:
    _keep(tmp_path, *(_taken(seed) for seed in range(10)))
    every = sorted(kept(tmp_path))
    now = time.time()
    for age, one in enumerate(every):
        os.utime(one.said, (now - age,) * 2)
    total = sum(one.num_bytes for one in every)
    sweep(tmp_path, CaptureSpec(sample=1.0, max_mb=total / 1e6), now)
    assert len(list(kept(tmp_path))) == 10
    sweep(tmp_path, CaptureSpec(sample=1.0, max_mb=0.6 * total / 1e6), now)
    left = set(kept(tmp_path))
    assert len(left) == 5
    assert {one.path for one in left} == {one.path for one in every[: len(left)]}


def test_it_never_grows_much_beyond_what_it_may(tmp_path: Path) -> None:
    spec = CaptureSpec(sample=1.0, max_mb=20 * 8192 / 1e6)  # a block for each, and one for what was said of it
    _keep(tmp_path, *(_taken(seed) for seed in range(60)), spec=spec)
    assert 15 <= len(list(kept(tmp_path))) <= 22


def test_what_a_killed_process_left_half_is_deleted(tmp_path: Path) -> None:
    _keep(tmp_path, _taken(1))
    (one,) = kept(tmp_path)
    half, young = (one.path.with_name(f".{name}.tmp") for name in ("half", "young"))
    for path in (half, young):
        path.write_bytes(b"\x89PNG")
    os.utime(half, (time.time() - 7200,) * 2)
    sweep(tmp_path, ALL, time.time())
    assert not half.exists()
    assert young.exists()
    assert list(pictures(tmp_path)) == [one.path]


def test_a_disk_without_room_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(folder: Path, num_bytes: int) -> None:
        raise DiskFull("no room")

    monkeypatch.setattr(files, "require_space", full)
    assert _keep(tmp_path, *(_taken(seed) for seed in range(5))) == {"failed": 5}
    assert [one.message for one in caplog.records] == ["A picture could not be kept for labelling: no room"]
    assert not list(pictures(tmp_path))


def test_a_slow_disk_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, become = threading.Event(), Counter[str]()
    monkeypatch.setattr(capture, "_write", lambda *_: held.wait(30) or 1)
    capturing = Capture(ALL, tmp_path, lambda model, version, what: become.update([what]))
    large = _taken(1)._replace(data=bytes(20_000_000))
    for _ in range(10):
        capturing.keep(large)
    assert become == {"dropped": 7}
    held.set()
    capturing.close()
    assert become == {"dropped": 7, "kept": 3}


def test_what_one_file_refuses_keeps_nothing_else_from_being_deleted(tmp_path: Path) -> None:
    _keep(tmp_path, *(_taken(seed) for seed in range(3)))
    now = time.time()
    first, *others = sorted(kept(tmp_path))
    for one in (first, *others):
        os.utime(one.said, (now - 31 * DAY_S,) * 2)
    first.said.write_text("rubbish")
    (tmp_path / "m" / "said" / "folder.json").mkdir()
    first.path.unlink()
    first.path.mkdir()
    sweep(tmp_path, ALL, now)
    assert not any(one.path.exists() for one in others)


def test_a_picture_that_could_not_be_written_is_kept_when_it_comes_again(tmp_path: Path) -> None:
    (tmp_path / "m" / "pictures").mkdir(parents=True)
    blocked = tmp_path / "m" / "pictures" / "ring"
    blocked.write_text("a file where the folder should be")
    assert _keep(tmp_path, _taken(1)) == {"failed": 1}
    blocked.unlink()
    assert _keep(tmp_path, _taken(1)) == {"kept": 1}


def test_a_disk_that_fills_up_in_the_middle_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert _keep(tmp_path, _taken(1)) == {"failed": 1}
    assert not list((tmp_path / "m" / "said").iterdir())
    assert _keep(tmp_path, _taken(1)) == {"kept": 1}


def test_names_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    _keep(tmp_path, _taken(1))
    odd = tmp_path / "m" / "pictures" / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    (odd / "x.png").write_bytes(_picture(2))
    told = captured(tmp_path, ALL)
    assert told.num_pictures == 1
    assert told.model_dump_json()
