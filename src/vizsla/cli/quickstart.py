"""`vizsla quickstart`: the whole chain on real digits."""

from __future__ import annotations

from vizsla.api import quickstart as verbs
from vizsla.api.quickstart import Outcome
from vizsla.cli.model import print_prediction
from vizsla.cli.options import Common
from vizsla.cli.output import facts, next_step, out, print_json, safe
from vizsla.cli.progress import Bars
from vizsla.cli.run import as_json
from vizsla.store.workspace import Workspace
from vizsla.words import percent, seconds


def quickstart(*, common: Common = Common()) -> None:
    """Train LeNet on 5,000 handwritten digits: from pictures to a tested, exported model, in one to two minutes."""
    with common.open_here(why="It makes a folder of pictures, and everything else from them.") as ws:
        with Bars(quiet=common.json, epoch_lines=False) as bars:
            outcome = verbs.run(ws, on_event=bars.event)
        if common.json:
            print_json(_as_json(ws, outcome))
        else:
            _show(ws, outcome)


def _as_json(ws: Workspace, outcome: Outcome) -> dict[str, object]:
    return {
        "workspace": str(ws.root),
        "dataset": outcome.dataset,
        "run": as_json(outcome.run),
        "evaluation": outcome.report,
        "model": outcome.model,
        "predictions": [{"picture": p.picture, "scores": [s._asdict() for s in p.scores]} for p in outcome.predictions],
        "seconds": outcome.seconds,
    }


def _show(ws: Workspace, outcome: Outcome) -> None:
    out.print("\n[bold]Three pictures of the test split[/]")
    for prediction in outcome.predictions:
        print_prediction(prediction)
    dataset, report = outcome.dataset, outcome.report
    splits = ", ".join(f"{sum(counts.values()):,} {split}" for split, counts in dataset.counts.items())
    accuracy = percent(report.headline["accuracy"].model_dump())
    times = ", ".join(f"{stage} {seconds(value)}" for stage, value in outcome.seconds.items())
    out.print("\n[bold]What was made[/]")
    pairs: list[tuple[str, object]] = [
        ("accuracy", f"[bold green]{accuracy}[/] on {report.num_pictures:,} test pictures"),
        ("", "[dim]in brackets: where it lies with 95 % confidence[/]"),
        ("pictures", f"{dataset.used:,} used + {dataset.rejected:,} rejected: {splits}"),
        ("time", times),
        ("dataset", f"{safe(dataset.name)}  [dim]{safe(ws.folder('dataset', dataset.id))}[/]"),
        ("run", f"{safe(outcome.run.run.name)}  [dim]{safe(outcome.run.folder)}[/]"),
        ("report", f"[dim]{safe(ws.folder('evaluation', report.id) / 'report.html')}[/]"),
        ("model", f"{safe(outcome.model.name)}  [dim]{safe(ws.folder('model', outcome.model.id))}[/]"),
    ]
    out.print(facts(pairs))
    next_step(
        ["vizsla", "dataset", "create", "NAME", "FOLDER"],
        "Now your own pictures, in a folder with one sub-folder a class:",
    )
