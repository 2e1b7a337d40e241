"""Who of a workspace is at work on a device."""

from __future__ import annotations

import os
from pathlib import Path

import vizsla
from vizsla import files
from vizsla.api import machine
from vizsla.machine.devices import Holder


def test_all_work_that_holds_a_device_is_named(tmp_path: Path) -> None:
    with vizsla.open(tmp_path / "workspace") as ws:
        for kind, held in (("rate", ("cpu",)), ("model", ("host",))):
            job = ws.store.jobs.add(kind, f"1{kind}", f"d-{kind}", owner="ada", need={})  # type: ignore[arg-type]
            ws.store.jobs.change(job, "running", held=held)
            ws.folder(job.kind, job.thing).mkdir()
        with files.Lock(ws.folder("rate", "1rate")), files.Lock(ws.folder("model", "1model")):
            (processor, *_) = machine.held(ws)
    assert processor.runs == [Holder("1rate", "d-rate", os.getpid())]
