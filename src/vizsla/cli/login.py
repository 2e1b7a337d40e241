"""`vizsla login` and `vizsla logout`: keep a token for a server, and forget it."""

from __future__ import annotations

import getpass
import sys

from vizsla.cli import tokens
from vizsla.cli.options import Output
from vizsla.cli.output import out, print_json, safe
from vizsla.client.server import Server, base_of
from vizsla.errors import InvalidInput


def login(url: str, /, *, output: Output = Output()) -> None:
    """Keep a token for a server, in a file that only you can read. It is asked for, or read from standard input.

    Args:
        url: The server, such as https://vizsla.example.org.
    """
    base = base_of(url)
    token = (getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not token:
        raise InvalidInput("No token was given.", remedy="Paste it, or give it on standard input.")
    with Server(base, token) as server:
        server.get("queue", limit=0)  # whether it opens anything
    tokens.keep(base, token)
    if output.json:
        print_json({"server": base})
    else:
        out.print(f"The token for {safe(base)} is kept in {safe(tokens.path())}.", soft_wrap=True)


def logout(url: str, /, *, output: Output = Output()) -> None:
    """Forget the token for a server.

    Args:
        url: The server.
    """
    base = base_of(url)
    if not tokens.forget(base):
        raise InvalidInput("No token is kept for this server.", where=base)
    if output.json:
        print_json({"server": base})
    else:
        out.print(f"The token for {safe(base)} is forgotten. Who else has it can use it until it is revoked.")
