"""`/devices`: what can train, how busy it is, and who is at work on it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from vizsla.web.pages.render import PageRoute, render
from vizsla.web.routes import machine
from vizsla.web.schema import Ws

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/devices", response_class=HTMLResponse)
def list_devices(ws: Ws, request: Request) -> HTMLResponse:
    """The processor, the GPUs, and the machine around them."""
    return render(
        request,
        "devices.html",
        twin="/api/v1/devices",
        devices=[one.model_dump(mode="json") for one in machine.list_devices(ws)],
        machine=machine.get_machine(ws).model_dump(mode="json"),
    )
