"""The live view of a run, without a terminal."""

import io

from rich.console import Console

from vizsla.cli.follow import View
from vizsla.events import Event


def _step(step: int, **more: float) -> Event:
    speeds = {"pictures_per_s": 118.2, "data_wait": 0.03, "elapsed_s": step / 10, "learning_rate": 1e-3}
    return {"event": "step", "step": step, "epoch": 1 + (step - 1) // 100, "loss": 100 / step, **speeds, **more}


def _epoch(step: int, accuracy: float) -> Event:
    interval = {"value": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02, "num_pictures": 500}
    epoch = {"event": "epoch", "step": step, "epoch": step // 100, "train_loss": 0.5, "val_loss": 0.6}
    return epoch | {"val_accuracy": interval, "num_val": 50, "best_epoch": step // 100, "best_step": step}


def _shown(view: View, width: int = 120, height: int = 40) -> str:
    file = io.StringIO()
    Console(file=file, width=width, height=height).print(view)
    assert max(map(len, file.getvalue().splitlines())) <= width
    return file.getvalue()


def _fed(*more: Event) -> View:
    view = View("dogs")
    view.event({"event": "started", "epochs": 4, "total_steps": 400})
    for event in more:
        view.event(event)
    return view


def test_a_run_that_trains() -> None:
    shown = _shown(_fed(*(_step(i) for i in range(10, 201, 10)), _epoch(200, 0.8), {"event": "notice", "text": "[n]"}))
    for text in ("dogs", "running", "epoch 2/4", "step 200/400", "118 pictures/s", "3 % waiting", "about 20.0 s left"):
        assert text in shown, shown
    assert "80.0 % (78.0 to 82.0), n 500" in shown
    assert "[n]" in shown, "text is not markup"
    assert "MB" not in shown
    richer = _shown(_fed(_step(200, memory_mb=812, device_use=0.5, eta_s=7)))
    assert "812 MB   device 50 % busy   trained 20.0 s   about 7.0 s left" in richer


def test_it_starts_with_nothing_and_ends_without_a_time_left() -> None:
    assert "The worker starts." in _shown(View("dogs"))
    features = {"event": "progress", "stage": "features of train", "done": 3, "total": 9}
    assert "features of train: 3 of 9" in _shown(_fed(features))
    view = _fed(_step(400), _epoch(400, 0.9))
    view.end("done")
    shown = _shown(view)
    assert "done" in shown
    assert "trained 40.0 s" in shown
    assert "left" not in shown


def test_a_resumed_run_goes_back_and_an_extended_one_is_longer() -> None:
    view = _fed(_step(100), _epoch(100, 0.7), _step(150), _step(200), _epoch(200, 0.8))
    view.event({"event": "extended", "epochs": 6, "total_steps": 600})
    view.event({"event": "resumed", "step": 120, "after": "lost"})
    shown = _shown(view)
    assert "step 120/600" in shown
    assert "80.0 %" not in shown
    view.event(_step(130))
    assert "step 130/600" in _shown(view)


def test_validations_between_epochs_are_drawn() -> None:
    between = {"event": "validation", "step": 50, "epoch": 0.5, "val_loss": 0.9, "val_accuracy": {"value": 0.4242}}
    assert "42.4 %" in _shown(_fed(_step(50), between))


def test_small_terminals_show_the_loss_first() -> None:
    view = _fed(_step(10), _step(20))
    small = _shown(view, width=60, height=16)
    assert "train loss" in small
    assert "learning rate" not in small
    assert len(small.splitlines()) < 16
    assert "learning rate" in _shown(view, width=60, height=50)
