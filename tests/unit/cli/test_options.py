from __future__ import annotations

import pytest
from tests.support import Cli


@pytest.mark.parametrize(
    ("options", "said", "status"),
    [
        (("--epochs", "1.5"), "'1.5' is not a whole number", 2),
        (("--batch-size", "32.7"), "'32.7' is not a whole number", 2),
        (("--device", "gpu"), "--device: this is not a value that it takes", 1),
        (("--processes", 20), "cannot be shared by 20 processes", 1),
    ],
)
def test_values_that_cannot_be_are_refused_by_their_option(
    cli: Cli, options: tuple[object, ...], said: str, status: int
) -> None:
    assert said in cli("train", "nothing", *options, status=status).err
