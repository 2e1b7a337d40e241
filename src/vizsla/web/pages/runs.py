"""`/runs`."""

from __future__ import annotations

from fastapi import APIRouter

from vizsla.web.pages.render import PageRoute

router = APIRouter(prefix="/runs", include_in_schema=False, route_class=PageRoute)
