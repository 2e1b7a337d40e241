"""The promise of the README: one command, real digits, above 97 % on pictures that were not seen."""

from __future__ import annotations

import pytest
from tests.support import Cli

pytestmark = pytest.mark.slow


def test_quickstart_twice(cli: Cli) -> None:
    found = cli("quickstart", "--json").json
    accuracy = found["evaluation"]["headline"]["accuracy"]
    assert accuracy["num_pictures"] == 1000
    assert accuracy["value"] > 0.97
    assert [p["scores"][0]["label"] for p in found["predictions"]] == [
        p["picture"].split("/")[-2] for p in found["predictions"]
    ]
    assert set(found["seconds"]) == {"dataset", "train", "evaluate", "export", "predict"}
    again = cli("quickstart")
    assert "on 1,000 test pictures" in again.out
    assert len(cli("dataset", "list", "--json").json) == 1
    runs = cli("run", "list", "--json").json
    assert [run["run"]["name"] for run in runs] == ["digits-lenet-1", "digits-lenet-2"]
    assert runs[0]["progress"]["last_epoch"]["train_loss"] == runs[1]["progress"]["last_epoch"]["train_loss"]
