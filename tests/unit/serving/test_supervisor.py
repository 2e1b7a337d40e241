"""How soon somebody takes the place of a worker that ended."""

from vizsla.serving.supervisor import PAUSES_S, pause_s


def test_the_first_failure_is_mended_at_once_and_many_are_not_hurried() -> None:
    assert [pause_s(failures) for failures in (1, 2, 3, 4, 5, 100)] == [*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1]]
    assert pause_s(1) < 1
