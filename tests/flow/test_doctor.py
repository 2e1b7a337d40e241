"""The doctor on this machine, whatever it is."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from tests.support import Cli

from vizsla.api import machine

pytestmark = pytest.mark.slow


def test_the_doctor_measures_this_machine(cli: Cli) -> None:
    found = {(check.topic, check.name): check for check in machine.diagnose(cli.workspace)}
    problems = sum(check.verdict == "problem" for check in found.values())
    assert "FLOP/s" in found["cpu", "matrix products"].found
    assert f"vizsla {version('vizsla')}" in found["libraries", "versions"].found
    assert "tf_efficientnet_lite0" in found["libraries", "pretrained weights"].found
    told = cli("doctor", "--json", status=int(problems > 0)).json
    assert [(check["topic"], check["name"]) for check in told["checks"]] == list(found)
    assert told["problems"] == problems
    shown = cli("doctor", status=int(problems > 0)).out
    assert all(check.name in shown and check.remedy in " ".join(shown.split()) for check in found.values())
    assert not cli.workspace.exists(), "to look makes nothing"
