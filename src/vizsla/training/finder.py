"""The range test of Smith (2017, "Cyclical Learning Rates"): which learning rate a network learns fastest with.

Started as `python -m vizsla.training.finder FOLDER` on a folder with `request.json`; leaves `rates.json` and
`rates.png` there. Nothing of the training is kept.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from vizsla import files, records, work
from vizsla.errors import TrainingFailed
from vizsla.events import EventLog
from vizsla.machine import usage
from vizsla.training.rates import CHART, FOUND, Point, Rates
from vizsla.training.run import ARITHMETIC, Request

with work.loading():
    from vizsla.training import charts, setup
    from vizsla.training.checkpoint import Position
    from vizsla.training.loop import Stepped, Task, train
    from vizsla.training.sitting import Sitting, keep_mean_picture, place, task_of

LOWEST, HIGHEST = 1e-7, 10.0
STEPS = 120
# Losses jump from step to step; what counts is their mean over so many steps.
WINDOW = 15
# A loss so many times the best one will not come down again.
DIVERGED = 3.0
# A fall by less than this share of the loss is chance.
LEAST_FALL = 0.05


def do(folder: Path, log: EventLog, stop: work.Stop) -> str:
    """Raise the learning rate from step to step until the loss grows, and write down both."""
    request = records.read(folder / work.REQUEST, Request, remedy="Ask for it again.")
    prepared = setup.prepare(request, log.notice, cache=folder.parents[1] / ARITHMETIC, on_progress=log.progress)
    if prepared.run.input.mean_picture:
        keep_mean_picture(prepared, request.dataset_folder, folder)
    state = place(prepared)
    sitting = Sitting(folder, log, stop, prepared, state, Position(step=0, elapsed_s=0.0))
    found = _climb(sitting, task_of(sitting))
    points = [(math.log10(point.rate / LOWEST), point.loss) for point in found.points]
    mark = (math.log10(found.suggested / LOWEST), f"{found.suggested:.1e}")
    chart = charts.curve(
        points,
        title="Loss by learning rate",
        subtitle=f"{found.network} on {found.dataset}, train split, {found.num_pictures:,} pictures seen",
        x_name="learning rate",
        x_text=lambda power: f"{LOWEST * 10**power:.0e}",
        mark=mark,
    )
    with files.atomic(folder / CHART) as temporary:
        chart.save(temporary, "PNG")
    files.write_json(folder / FOUND, found.model_dump(mode="json"))
    return "done"


def _climb(sitting: Sitting, task: Task) -> Rates:
    plan = task.plan
    epochs = math.ceil(STEPS / plan.steps_per_epoch)
    task = replace(
        task,
        plan=plan._replace(epochs=epochs),
        val=None,
        rate=lambda progress: _rate(progress * epochs * plan.steps_per_epoch / STEPS),
        report_every=1,
    )
    rates: list[float] = []
    losses: list[float] = []
    loop = train(task, sitting.state)
    try:
        for event in loop:
            if not isinstance(event, Stepped) or event.loss is None:
                continue
            rates.append(event.learning_rate)
            losses.append(event.loss)
            sitting.stop.check()
            sitting.write("progress", stage="learning rates", done=event.step, total=STEPS)
            means = smoothed(losses)
            if event.step >= STEPS or means[-1] > DIVERGED * min(means):
                break
    except TrainingFailed:  # the loss is not finite any more: this is as far as it goes
        if len(losses) < 2 * WINDOW:
            raise
    finally:
        loop.close()
    sitting.write("progress", stage="learning rates", done=STEPS, total=STEPS)
    run = sitting.prepared.run
    return Rates(
        network=run.network,
        dataset=run.dataset.name,
        points=[Point(rate=rate, loss=loss) for rate, loss in zip(rates, smoothed(losses), strict=True)],
        suggested=suggest(rates, losses),
        num_pictures=len(losses) * plan.step_size,
    )


def _rate(progress: float) -> float:
    return float(LOWEST * (HIGHEST / LOWEST) ** progress)


def smoothed(losses: list[float]) -> list[float]:
    """The mean of each loss and its neighbours, of as many on both sides as there are up to half a window."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    places = np.arange(len(losses))
    reach = np.minimum(WINDOW // 2, np.minimum(places, places[::-1]))
    return ((sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)).tolist()


def suggest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss is half way down from where it began to where it is lowest.

    That is about where it falls most steeply, but does not jump with the noise of single steps.

    Raises:
        TrainingFailed: the loss did not fall.
    """
    means = np.array(smoothed(losses))
    start, lowest = float(np.mean(losses[:WINDOW])), int(means.argmin())
    if means[lowest] > (1 - LEAST_FALL) * start:
        raise TrainingFailed(
            f"The loss did not fall at any learning rate from {rates[0]:.0e} to {rates[-1]:.0e}.",
            remedy="Try another --optimizer, or look whether the labels fit the pictures.",
        )
    above = np.flatnonzero(means[:lowest] > (start + means[lowest]) / 2)
    return float(rates[above[-1] if len(above) else 0])


if __name__ == "__main__":
    work.leave(work.main(do, stop_at_once=False, beside=usage.watching))
