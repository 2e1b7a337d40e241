"""Pictures of this machine are sent to a server, over lines that are cut, and worked on there."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.faces.faces import Faces

import vizsla
from vizsla.api import datasets, predictions, uploads
from vizsla.datasets import upload
from vizsla.errors import InvalidInput
from vizsla.events import Event

pytestmark = pytest.mark.slow


def _pictures(faces: Faces) -> Path:
    return datasets.get(faces.ws, "shapes").spec.source


def test_a_folder_is_sent_and_becomes_a_dataset(faces: Faces) -> None:
    folder = _pictures(faces)
    options = ("--size", 32, "--val-percent", 20, "--test-percent", 20)
    made = faces.command(1, "dataset", "create", "sent", folder, *options, "--upload")
    assert made.status == 0, made
    shapes = datasets.get(faces.ws, "shapes")
    assert made.told["fingerprint"] == shapes.fingerprint
    assert made.told["origins"]["source"]["name"] == folder.name
    assert folder.name not in [one.upload.name for one in uploads.list_all(faces.server)], "it was used"
    here = faces.command(0, "dataset", "create", "not sent", folder, "--upload")
    assert "need not be sent" in here.told["error"]["what"]


def test_an_archive_is_sent_and_classified(faces: Faces, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", _pictures(faces)))
    sent = uploads.send(faces.server, packed)
    assert uploads.send(faces.server, packed).upload.id == sent.upload.id, "what is there is not sent again"
    found = predictions.create(faces.server, "exported", sent.source, name="of what was sent")
    seen = predictions.get(faces.ws, "seen")
    assert (found.classes, found.num_pictures, found.source) == (seen.classes, seen.num_pictures, "packed.zip")
    rows = (predictions.rows(faces.ws, name, limit=100).items for name in ("seen", "of what was sent"))
    assert next(rows) == next(rows)
    assert sent.upload.id not in [one.upload.id for one in uploads.list_all(faces.server)], "it was used"
    # The same by the path of an archive, and by a command that sends.
    words = ("prediction", "create", "exported", packed, "--upload", "--name", "of a command")
    assert faces.command(1, *words).told["classes"] == seen.classes
    local = predictions.create(faces.ws, "exported", packed, name="of an archive")
    assert (local.classes, local.source) == (seen.classes, str(packed))


def test_an_upload_goes_on_over_cut_lines(faces: Faces, tmp_path: Path) -> None:
    packed = tmp_path / "large.zip"
    packed.write_bytes(b"PK\3\4" + os.urandom(9 * 2**20))
    told: list[Event] = []
    with _cut(faces.server.url, [2**21, 7 * 2**20]) as (url, cuts), vizsla.connect(url) as server:
        sent = uploads.send(server, packed, on_event=told.append)
        assert cuts == []
    try:
        assert sent.upload.complete, "its SHA-256 is what was promised"
        size = packed.stat().st_size
        done = [event["done"] for event in told]
        assert done == sorted(done)
        assert (done[0], done[-1], told[0]["total"], told[0]["stage"]) == (0, size, size, "upload")
        assert len(done) > 1 + size / uploads.PIECE_BYTES
    finally:
        uploads.delete(faces.server, sent.upload.id)


def test_who_was_killed_goes_on_where_they_were(faces: Faces, tmp_path: Path) -> None:
    folder = shutil.copytree(_pictures(faces), tmp_path / "begun before")
    ring = folder / "ring" / "000.png"
    told: list[Event] = []
    begun = uploads.create(faces.server, folder.name, kind="folder").upload.id
    uploads.put_picture(faces.server, begun, "ring/000.png", ring.read_bytes())
    sent = uploads.send(faces.server, folder, on_event=told.append)
    assert (sent.upload.id, sent.num_pictures) == (begun, 30)
    assert told[0]["done"] == ring.stat().st_size
    assert told[-1]["done"] == told[-1]["total"] == sent.offset
    ring.write_bytes(b"another picture")
    other = uploads.send(faces.server, folder)
    assert other.upload.id != begun, "of another folder nothing is mixed in"
    for id in (begun, other.upload.id):
        uploads.delete(faces.server, id)


def test_what_cannot_be_sent_is_refused_before_it_is(faces: Faces, tmp_path: Path) -> None:
    before = uploads.list_all(faces.server)
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="no pictures"):
        uploads.send(faces.server, tmp_path / "empty")
    with pytest.raises(InvalidInput, match="cannot be read"):
        uploads.send(faces.server, tmp_path / "nowhere")
    with (tmp_path / "empty" / "large.png").open("wb") as file:
        file.truncate(uploads.MAX_CHUNK_BYTES + 1)
    with pytest.raises(InvalidInput, match="bytes at most"):
        uploads.send(faces.server, tmp_path / "empty")
    with pytest.raises(InvalidInput, match="bound"):
        uploads.create(faces.server, "x", size=1, max_bytes=upload.MAX_BYTES - 1)
    assert uploads.list_all(faces.server) == before


@contextmanager
def _cut(url: str, cuts: list[int]) -> Iterator[tuple[str, list[int]]]:
    """An address that leads to a server, by a line that is cut each time that so many bytes have been sent."""
    target = urlsplit(url)
    num_sent = 0

    def forward(client: socket.socket) -> None:
        nonlocal num_sent
        with client, socket.create_connection((target.hostname, target.port)) as server:
            threading.Thread(target=answer, args=(server, client), daemon=True).start()
            with suppress(OSError):
                while data := client.recv(65_536):
                    num_sent += len(data)
                    if cuts and num_sent > cuts[0]:
                        del cuts[0]
                        break
                    server.sendall(data)
            for one in (client, server):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def answer(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                client.sendall(data)

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=forward, args=(listener.accept()[0],), daemon=True).start()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", cuts
        listener.shutdown(socket.SHUT_RDWR)
