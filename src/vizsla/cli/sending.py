"""`--upload`: the pictures of this machine are sent to the server that is to work on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vizsla.api import uploads
from vizsla.cli.opening import server_of
from vizsla.cli.options import Common
from vizsla.cli.output import err, safe
from vizsla.cli.progress import Bars
from vizsla.client.server import Server
from vizsla.errors import InvalidInput, VizslaError
from vizsla.store.workspace import Workspace

Uploading = Annotated[
    bool,
    Parameter(
        name="--upload",
        negative="",
        show_default=False,
        help="With a server: send it the folder or archive of this machine. One that was cut off goes on where it was.",
    ),
]


def require_server(common: Common) -> None:
    """Raise `InvalidInput` where there is no server to send anything to."""
    if server_of(common) is None:
        what = "What is on this machine already need not be sent."
        raise InvalidInput(what, where="--upload", remedy="Leave it out, or give --server.")


@contextlib.contextmanager
def sent(ws: Workspace | Server, common: Common, *paths: Path) -> Iterator[list[Path]]:
    """Send folders and archives, for work that is asked for within; gives what stands for each as a source."""
    with Bars(quiet=common.json) as bars:
        sources = [uploads.send(ws, path, on_event=bars.event).source for path in paths]
    try:
        yield sources
    except (VizslaError, KeyboardInterrupt):
        named = " and ".join(str(source) for source in sources)
        err.print(f"What was sent is kept for a day: {safe(named)} names it.", soft_wrap=True)
        raise
