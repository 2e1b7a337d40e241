"""The entry point: the commands, and how errors are printed. Commands are imported only when they are used."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import warnings
from importlib.metadata import version
from types import FrameType
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, UnusedCliTokensError

from vizsla.errors import VizslaError

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_STOPPED = 130  # as a shell reports a command that Ctrl-C ended

app = App(
    name="vizsla",
    help="Turn a folder of labelled pictures into a trained, tested and exported vision model.",
    version=lambda: version("vizsla"),
    help_on_error=False,
    suppress_keyboard_interrupt=False,
)
app.command("vizsla.cli.quickstart:quickstart", help="Train on 5,000 digits, from pictures to a model.")
app.command("vizsla.cli.dataset:app", name="dataset", help="Build, list, show and delete datasets.")
app.command(
    "vizsla.cli.run:train",
    name="train",
    help="Train a network on a dataset.\n\nCtrl-C stops at a checkpoint, or asks; `vizsla run resume` goes on from it.",
)
app.command("vizsla.cli.run:app", name="run", help="Preview, list, show, follow, resume, extend, clone and stop runs.")
app.command("vizsla.cli.evaluation:evaluate", name="evaluate", help="Measure a run or a model on a split.")
app.command("vizsla.cli.evaluation:app", name="evaluation", help="List, show and delete evaluations.")
app.command("vizsla.cli.model:app", name="model", help="Export, list, show and delete models.")
app.command(
    "vizsla.cli.model:predict",
    name="predict",
    help="Classify pictures with a model.\n\nThe exit status is 1 when a picture could not be read.",
)
app.command(
    "vizsla.cli.prediction:app",
    name="prediction",
    help="Classify many pictures, list, show, export and delete what came out.",
)
app.command(
    "vizsla.cli.doctor:doctor",
    name="doctor",
    help="Look at this machine: what it has, how fast it is, and what to do where that will not do.\n\n"
    "The exit status is 1 when there is a problem.",
)
app.command("vizsla.cli.devices:devices", name="devices", help="List the devices of this machine and who uses them.")
app.command(
    "vizsla.cli.serve:serve",
    name="serve",
    help="Serve a workspace to browsers, and to programs by REST; look after its queue.",
)
app.command("vizsla.cli.service:app", name="service", help="Let a model answer programs and people.")
app.command("vizsla.cli.account:app", name="account", help="Say who may use a server, and see what they did.")
app.command(
    "vizsla.cli.login:login",
    name="login",
    help="Keep a token for a server.\n\nIt is asked for, or read from standard input, and kept in a file that only you "
    "can read.",
)
app.command("vizsla.cli.login:logout", name="logout", help="Forget the token for a server.")
app.command("vizsla.cli.jobs:app", name="jobs", help="List, show, stop and look after the work in the queue.")
app.command("vizsla.cli.network:app", name="network", help="List, show and draw networks.")


def main() -> NoReturn:
    """Run the command in `sys.argv` and exit with its status."""
    # A container is stopped by SIGTERM; it should end in a checkpoint, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    warnings.showwarning = _print_warning
    try:
        status = app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _print_error({"kind": "usage", "what": _one_line(error), "where": "", "remedy": _help_for(error)})
        status = EXIT_USAGE
    except VizslaError as error:
        _print_error(error.as_dict())
        status = EXIT_ERROR
    except KeyboardInterrupt:
        _print_error(
            {"kind": "stopped", "what": "Stopped; nothing half-made is left behind.", "where": "", "remedy": ""}
        )
        status = EXIT_STOPPED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    from vizsla.cli.output import err, safe

    err.print(f"[yellow]Warning:[/] {safe(message)}", soft_wrap=True)


def _one_line(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"Nothing is expected after the other arguments: {shlex.join(error.unused_tokens or ())}."
    return " ".join(str(error).split())


def _help_for(error: CycloptsError) -> str:
    chain = " ".join(("vizsla", *(error.command_chain or ())))
    return f"See: {chain} --help"


def _print_error(fields: dict[str, str]) -> None:
    """Print an error for people, on standard error; or as one JSON document, on standard output, for `--json`."""
    if "--json" in sys.argv:
        print(json.dumps({"error": fields}, indent=2))
        return
    from vizsla.cli.output import print_error

    print_error(fields)
