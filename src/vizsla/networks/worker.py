"""Answers questions about networks for processes that must not load torch: JSON in, JSON out.

Started as `python -m vizsla.networks.worker`; see `vizsla.jobs.launch.ask`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from vizsla import work
from vizsla.errors import VizslaError


def answer(question: dict[str, Any]) -> Any:
    """The answer to {"list": PATTERN} or {"show": NAME, "size": [H, W], "channels": C, "num_classes": K}.

    "draw" in place of "show" asks for an SVG. A size of null is the one that the network was made for. {"at_hand":
    null} asks which networks have pretrained weights on this disk, {"families": null} for all names and families.
    """
    with work.loading():
        from vizsla.networks import catalogue, graph, own, sources

    if "at_hand" in question:
        return sources.at_hand()
    if "families" in question:
        return {"families": catalogue.families(), "accepted": catalogue.accepted()}
    if "list" in question:
        return catalogue.names(question["list"])
    name = question.get("show") or question["draw"]
    catalogue.check(name)
    size = tuple(question["size"] or catalogue.input_size(name))
    channels = question["channels"]
    network = catalogue.build(name, num_classes=question["num_classes"], in_channels=channels, size=size)
    if "draw" in question:
        return {"svg": graph.draw(network, own.title(name), size, channels)}
    found = catalogue.summary(network, size, channels)
    return {
        **catalogue.describe(name),
        **found._asdict(),
        "size": size,
        "layers": [layer._asdict() for layer in found.layers],
    }


def main() -> None:
    """Answer the one question on standard input."""
    try:
        reply = {"answer": answer(json.load(sys.stdin))}
    except VizslaError as error:
        reply = {"error": error.as_dict()}
    print(json.dumps(reply))


if __name__ == "__main__":
    main()
    work.leave(0)
