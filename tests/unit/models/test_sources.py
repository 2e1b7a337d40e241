"""Lists of pictures to classify."""

from __future__ import annotations

from pathlib import Path

from vizsla.models.sources import Named, find

REFUSED = "not in a folder that may be read"


def test_a_list_does_not_tell_what_lies_elsewhere(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "there 1").write_bytes(b"x")
    (inside / "link 1").symlink_to(outside / "there 1")
    (inside / "mine 1").write_bytes(b"x")
    (inside / "list.txt").write_text(f"{outside}/there 1\n{outside}/none 1\nlink 1\nmine 1\n")
    found = find(inside / "list.txt", ["a", "b"], within=[inside.resolve()])
    assert found[:2] == [Named(f"{outside}/{name}", "", "b", REFUSED) for name in ("there", "none")]
    assert found[2].path == "link"
    assert found[3] == Named("mine 1", str(inside / "mine 1"), None, None)


def test_a_byte_order_mark_is_no_part_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeffa.png 0\nb.png\n", encoding="utf-8")
    found = find(tmp_path / "list.txt", ["a"], within=[tmp_path.resolve()])
    assert [(named.path, named.label) for named in found] == [("a.png", "a"), ("b.png", None)]


def test_the_lists_of_datasets_do_too(tmp_path: Path) -> None:
    """A class by its name, behind a tab or a space; of a name that no class has, all belongs to the path."""
    (tmp_path / "my beagle").write_bytes(b"x")
    (tmp_path / "list.txt").write_text("a.png beagle\nb.png\tbasset hound\nmy beagle\nc d.png\n")
    found = find(tmp_path / "list.txt", ["basset hound", "beagle"])
    assert [(named.path, named.label) for named in found] == [
        ("a.png", "beagle"),
        ("b.png", "basset hound"),
        ("my beagle", None),
        ("c d.png", None),
    ]
