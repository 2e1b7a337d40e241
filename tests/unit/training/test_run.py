from __future__ import annotations

from pathlib import Path

import pytest

from vizsla.events import now
from vizsla.training.run import Request
from vizsla.training.spec import TrainingSpec


@pytest.mark.parametrize(
    ("asked", "device", "processes"),
    [
        ({"processes": 2}, None, 2),
        ({"processes": 2}, "auto", 2),
        ({"processes": 2}, "cpu", 2),
        ({"processes": 2}, "cuda:0", 1),
        ({"device": "cuda:0,1"}, "cuda:3", 1),
        ({"device": "cuda:0,1"}, "cuda:1,2,3", 3),
        ({}, "cuda:0,1", 2),
    ],
)
def test_a_run_goes_on_in_as_many_processes_as_gpus_are_named(
    asked: dict[str, object], device: str | None, processes: int
) -> None:
    spec = TrainingSpec(**asked)  # type: ignore[arg-type]
    request = Request(id="1", name="r", created_at=now(), dataset_folder=Path("d"), spec=spec, device=device)
    assert request.num_processes == processes
    named = device is not None and ":" in device
    assert len(request.named_devices) == (processes if named else 0)
