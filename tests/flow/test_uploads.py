"""Uploads: they go on where they were cut off, belong to their owner, are bounded, and become datasets."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.flow.test_serve import _done, _problem, _until
from tests.support import Cli, Server, draw_shapes

import vizsla
from vizsla.api import datasets, uploads
from vizsla.datasets import upload
from vizsla.errors import Conflict, DiskFull, InvalidInput, NotFound
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow
SPEC = {"width": 32, "height": 32, "val_percent": 20}


@pytest.fixture(scope="module")
def server(ws: Workspace) -> Iterator[Server]:
    started = Server(ws.root, "--max-upload", 0.05)
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def client(server: Server) -> httpx.Client:
    return server.client


@pytest.fixture(scope="module")
def packed(ws: Workspace) -> bytes:
    """The pictures of `shapes` as a zip."""
    folder = datasets.get(ws, "shapes").spec.source
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.write(path, path.relative_to(folder.parent))
    return made.getvalue()


def _begin(client: httpx.Client, data: bytes, **fields: Any) -> str:
    made = client.post("/uploads", json={"name": "shapes.zip", "size": len(data)} | fields)
    assert made.status_code == 201, made.text
    assert made.headers["Upload-Offset"] == "0"
    return made.headers["Location"].removeprefix("/api/v1")


def _send(client: httpx.Client, place: str, offset: int, data: bytes) -> httpx.Response:
    return client.patch(place, content=data, headers={"Upload-Offset": str(offset)})


def _head(host: str, place: str, offset: int, length: int) -> bytes:
    lines = (f"PATCH /api/v1{place} HTTP/1.1", f"Host: {host}", f"Upload-Offset: {offset}", f"Content-Length: {length}")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def test_an_archive_comes_in_pieces_and_becomes_a_dataset(client: httpx.Client, ws: Workspace, packed: bytes) -> None:
    place = _begin(client, packed, sha256=hashlib.sha256(packed).hexdigest())
    id = place.removeprefix("/uploads/")
    middle = len(packed) // 2
    assert _send(client, place, 0, packed[:middle]).json()["offset"] == middle
    wrong = _send(client, place, middle + 1, packed[middle + 1 :])
    _problem(wrong, 409, "conflict")
    assert wrong.headers["Upload-Offset"] == str(middle)
    early = client.post("/datasets", json={"name": "early", "spec": SPEC | {"source": f"upload:{id}"}})
    assert f"{middle} of {len(packed)} bytes" in _problem(early, 422, "invalid-input")["detail"]
    too_much = _send(client, place, middle, packed[middle:] + b"x")
    _problem(too_much, 413, "too-large")
    offset = int(client.get(place).headers["Upload-Offset"])
    whole = _send(client, place, offset, packed[offset:]).json()
    assert (whole["offset"], whole["complete"]) == (len(packed), True)
    _problem(_send(client, place, len(packed), b""), 409, "conflict")
    _done(client, client.post("/datasets", json={"name": "whole", "spec": SPEC | {"source": f"upload:{id}"}}))
    made = client.get("/datasets/whole").json()
    assert made["fingerprint"] == datasets.get(ws, "shapes").fingerprint
    origin = {"name": "shapes.zip", "sha256": hashlib.sha256(packed).hexdigest(), "num_bytes": len(packed)}
    assert made["origins"] == {"source": origin}
    assert made["spec"]["source"] == f"upload:{id}"
    _problem(client.get(place), 404, "not-found")
    assert not (ws.root / "uploads" / id).exists()
    _problem(client.post("/datasets", json={"name": "x", "spec": SPEC | {"source": f"upload:{id}"}}), 404, "not-found")


def test_pictures_come_one_by_one_into_a_folder(client: httpx.Client, ws: Workspace) -> None:
    source = datasets.get(ws, "shapes").spec.source
    place = _begin(client, b"", kind="folder", size=None, name="my shapes")
    paths = sorted(source.rglob("*.png"))
    for path in paths:
        answer = client.put(f"{place}/pictures/{path.relative_to(source)}", content=path.read_bytes())
        assert answer.status_code == 200, answer.text
    again = client.put(f"{place}/pictures/{paths[0].relative_to(source)}", content=paths[0].read_bytes())
    assert again.json()["num_pictures"] == len(paths)
    assert again.json()["offset"] == sum(path.stat().st_size for path in paths)
    listed = client.get(f"{place}/pictures").json()["items"]
    assert listed[0]["sha256"] == hashlib.sha256(paths[0].read_bytes()).hexdigest()
    assert {item["path"] for item in listed} == {str(path.relative_to(source)) for path in paths}
    for bad in ("disc/..%2f..%2f..%2fevil.png", "%2fetc%2fx", "disc%5cx.png", ".hidden/x.png", "disc/", "a%00b"):
        _problem(client.put(f"{place}/pictures/{bad}", content=b"x"), 422, "invalid-input")
    _problem(client.put(f"{place}/pictures/disc", content=b"x"), 409, "conflict")
    _problem(client.put(f"{place}/pictures/disc/000.png/x.png", content=b"x"), 409, "conflict")
    assert not list(ws.root.rglob("*evil*"))
    assert not list((ws.root / place.strip("/")).glob(".*.tmp"))
    id = place.removeprefix("/uploads/")
    _done(client, client.post("/datasets", json={"name": "one by one", "spec": SPEC | {"source": f"upload:{id}"}}))
    made = client.get("/datasets/one by one").json()
    assert made["fingerprint"] == datasets.get(ws, "shapes").fingerprint
    assert made["origins"]["source"]["name"] == "my shapes"


def test_a_killed_server_and_a_cut_line_lose_nothing(ws: Workspace, tmp_path: Path, packed: bytes) -> None:
    with vizsla.open(tmp_path / "workspace") as own:
        data = packed + os.urandom(3 * 2**20)
        first = Server(own.root)
        place = _begin(first.client, data, kind="picture")
        assert _send(first.client, place, 0, data[:1000]).status_code == 200
        host, port = first.client.base_url.host, first.client.base_url.port or 0
        with socket.create_connection((host, port)) as line:  # promises more than it sends, and is cut
            line.sendall(_head(host, place, 1000, 2_500_000) + data[1000:2_000_000])
            _until(lambda: first.client.get(place).json()["offset"] > 1000)
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        second = Server(own.root)
        offset = second.client.get(place).json()["offset"]
        assert 1000 < offset <= 2_000_000  # what had come to the disk; the rest is lost with the line
        assert _send(second.client, place, offset, data[offset:]).json()["complete"]
        assert (own.root / place.strip("/") / "data").read_bytes() == data
        # Killed with all bytes there and nobody told: an empty piece ends it.
        other = _begin(second.client, b"abc", kind="picture")
        (own.root / other.strip("/") / "data").write_bytes(b"abc")
        assert _send(second.client, other, 3, b"").json()["complete"]
        assert second.stop() == 0


def test_two_at_once_do_not_mix(client: httpx.Client, server: Server) -> None:
    data = os.urandom(500_000)
    place = _begin(client, data, kind="picture")
    host, port = client.base_url.host, client.base_url.port or 0
    with socket.create_connection((host, port)) as slow:
        slow.sendall(_head(host, place, 0, len(data)) + data[:1000])
        # Until the first has begun, the wrong offset is what is wrong.
        _until(lambda: "Another request is sending" in _send(client, place, 1, b"x").json()["detail"])
        _problem(_send(client, place, 0, data), 409, "conflict")
        _problem(client.delete(place), 409, "conflict")
        slow.sendall(data[1000:])
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
    assert client.get(place).json()["complete"]


def test_bounds_and_wrong_fields(client: httpx.Client) -> None:
    for fields in ({"size": 0}, {"size": None}, {"kind": "folder"}, {"sha256": "x"}, {"name": " "}, {"kind": "disk"}):
        body = {"name": "a.zip", "size": 10} | fields
        _problem(client.post("/uploads", json=body), 422, "invalid-input")
    _problem(client.post("/uploads", json={"name": "a.zip", "size": 60_000_000}), 413, "too-large")
    place = _begin(client, b"", size=40_000_000)
    refused = _send(client, place, 0, bytes(17 * 2**20))
    _problem(refused, 413, "too-large")
    assert client.get(place).json()["offset"] <= 16 * 2**20
    folder = _begin(client, b"", kind="folder", size=None)
    _problem(client.put(f"{folder}/pictures/a/b.png", content=bytes(17 * 2**20)), 413, "too-large")
    assert client.get(folder).json()["num_pictures"] == 0
    _problem(client.patch(place, content=b"x"), 422, "invalid-input")
    _problem(client.get("/uploads/..%2f..%2fdatasets"), 404, "not-found")
    _problem(client.get("/uploads/nothing"), 404, "not-found")
    for one in (place, folder):
        assert client.delete(one).status_code == 200
        _problem(client.get(one), 404, "not-found")


def test_a_wrong_hash_begins_anew(ws: Workspace) -> None:
    data = b"some bytes"
    made = uploads.create(ws, "a.zip", size=len(data), sha256=hashlib.sha256(data).hexdigest()).upload
    with pytest.raises(InvalidInput, match="SHA-256"):
        uploads.append(ws, made.id, 0, b"other byte")
    assert uploads.get(ws, made.id).offset == 0
    assert uploads.append(ws, made.id, 0, data).upload.complete


def test_a_picture_whose_line_was_not_written_is_counted_when_it_comes_again(ws: Workspace) -> None:
    id = uploads.create(ws, "pictures", kind="folder").upload.id
    uploads.put_picture(ws, id, "disc/a.png", b"four")
    listed = ws.root / "uploads" / id / upload.LIST
    before = listed.read_bytes()
    uploads.put_picture(ws, id, "disc/b.png", b"sixsix")
    listed.write_bytes(before)  # as when the server is killed between the picture and its line
    again = uploads.put_picture(ws, id, "disc/b.png", b"sixsix")
    assert (again.num_pictures, again.offset) == (2, 10)
    replaced = uploads.put_picture(ws, id, "disc/a.png", b"x")
    assert (replaced.num_pictures, replaced.offset) == (2, 7)
    uploads.delete(ws, id)


@pytest.mark.parametrize("field", ["labels_file", "picture_folder"])
def test_only_pictures_come_from_uploads(client: httpx.Client, field: str) -> None:
    spec = SPEC | {"source": "upload:none", field: "upload:../../../etc/passwd"}
    refused = _problem(client.post("/datasets", json={"name": "x", "spec": spec}), 422, "invalid-input")
    assert refused["where"] == f"spec.{field}"


def test_others_see_nothing_of_it(ws: Workspace) -> None:
    made = uploads.create(ws, "a.zip", size=10).upload
    other = replace(ws, user="somebody else", role="member")
    assert uploads.list_all(other) == []
    spec = vizsla.DatasetSpec(source=Path(f"upload:{made.id}"))
    for act in (
        lambda: uploads.get(other, made.id),
        lambda: uploads.delete(other, made.id),
        lambda: uploads.append(other, made.id, 0, b"x"),
        lambda: uploads.put_picture(other, made.id, "a/b.png", b"x"),
        lambda: datasets.submit(other, "x", spec),
    ):
        with pytest.raises(NotFound):
            act()
    assert made.id in [status.upload.id for status in uploads.list_all(ws)]


def test_what_is_abandoned_is_swept_and_what_waits_is_not(tmp_path: Path, packed: bytes) -> None:
    with vizsla.open(tmp_path / "workspace") as own:
        old, new = (uploads.create(own, name, size=10).upload.id for name in ("old", "new"))
        queued = uploads.create(own, "queued", size=len(packed)).upload.id
        uploads.append(own, queued, 0, packed)
        spec = vizsla.DatasetSpec(source=Path(f"upload:{queued}"), width=32, height=32)
        job = datasets.submit(own, "d", spec)
        with pytest.raises(Conflict, match="is being made from the upload"):
            datasets.submit(own, "d2", spec)
        with pytest.raises(Conflict, match="is being made from the upload"):
            uploads.delete(own, queued)
        for id in (old, queued):
            for path in (own.root / "uploads" / id, *(own.root / "uploads" / id).iterdir()):
                os.utime(path, (1e9, 1e9))
        assert uploads.sweep(own) == [old]
        assert [status.upload.id for status in uploads.list_all(own)] == [new, queued]
        datasets.finish(own, job)
        assert [status.upload.id for status in uploads.list_all(own)] == [new]


def test_a_building_that_fails_leaves_the_upload(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("husky/../../evil.png", b"x")
    data = made.getvalue()
    with vizsla.open(tmp_path / "workspace") as own:
        id = uploads.create(own, "bad.zip", size=len(data)).upload.id
        uploads.append(own, id, 0, data)
        with pytest.raises(InvalidInput, match="leads out of its folder"):
            datasets.create(own, "d", vizsla.DatasetSpec(source=Path(f"upload:{id}")))
        assert list((own.root / "datasets").iterdir()) == []
        assert not list(tmp_path.rglob("*evil*"))
        assert uploads.delete(own, id).id == id


def test_an_archive_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes", num=5)
    shutil.make_archive(str(tmp_path / "shapes"), "gztar", tmp_path, "shapes")
    made = cli("dataset", "create", "d", tmp_path / "shapes.tar.gz", "--size", 16, "--json").json
    assert (made["used"], made["origins"]["source"]["name"]) == (15, "shapes.tar.gz")
    assert "shapes.tar.gz" in cli("dataset", "show", "d").out
    (tmp_path / "no.zip").write_text("no archive")
    assert "neither a folder nor an archive" in cli("dataset", "create", "e", tmp_path / "no.zip", status=1).err


def test_the_example_of_the_docs_works(client: httpx.Client, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rest.md").read_text().split("## Uploads")[1]
    (block,) = re.findall(r"```bash\n(.*?)```", page.partition("\n## ")[0], re.DOTALL)
    draw_shapes(tmp_path / "dogs", num=5)
    shutil.make_archive(str(tmp_path / "dogs"), "zip", tmp_path, "dogs")
    shutil.copyfile(tmp_path / "dogs" / "disc" / "000.png", tmp_path / "1.jpg")
    script = f"set -eu\napi={client.base_url}\napi=${{api%/}}\njson='content-type: application/json'\n{block}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"complete":true' in done.stdout
    assert '"path":"husky/1.jpg"' in done.stdout
    made = _until(lambda: (answer := client.get("/datasets/sent")).status_code == 200 and answer.json())
    assert made["used"] == 15


def test_a_full_disk(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(24)
    with vizsla.open(disk / "w") as own:
        with pytest.raises(DiskFull):
            uploads.create(own, "a.zip", size=30_000_000)
        id = uploads.create(own, "a.bin", kind="picture", size=15_000_000).upload.id
        (disk / "ballast").write_bytes(bytes(16_000_000))
        with pytest.raises(DiskFull):
            uploads.append(own, id, 0, bytes(10_000_000))
        there = uploads.get(own, id).offset
        assert 0 < there < 10_000_000
        (disk / "ballast").unlink()
        uploads.append(own, id, there, bytes(15_000_000 - there))
        assert uploads.get(own, id).upload.complete
        uploads.delete(own, id)
        # An archive that grows past the disk: nothing that was unpacked stays.
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
            for number in range(10):
                file.writestr(f"h/{number}.bmp", bytes(5_000_000))
        (disk / "a.zip").write_bytes(made.getvalue())
        with pytest.raises(DiskFull):
            datasets.create(own, "d", vizsla.DatasetSpec(source=disk / "a.zip"))
        assert list((own.root / "datasets").iterdir()) == []
