"""`/api/v1/services`: models that answer programs and people."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from vizsla.api import services
from vizsla.errors import Forbidden
from vizsla.jobs.spec import ServiceJobSpec
from vizsla.models import archive
from vizsla.serving.capture import Captured
from vizsla.serving.hosting import LOOPBACK, Hosted, HostingSpec
from vizsla.web.etags import tagged, unchanged
from vizsla.web.kept import Known
from vizsla.web.lists import Listing, page, parent_id
from vizsla.web.once import KEYED, Once
from vizsla.web.schema import (
    Body,
    Changed,
    EntryAnswer,
    JobAnswer,
    Name,
    NotesAnswer,
    TagsAnswer,
    Things,
    Ws,
    exact,
    queued,
)
from vizsla.web.written import changed, labelled, noted

router = APIRouter(prefix="/services", tags=["services"], route_class=Once)


PRIVILEGED_PORTS = 1024


class QueuedService(Body):
    """How a service goes through the queue."""

    job: ServiceJobSpec = ServiceJobSpec()


class NewService(QueuedService, HostingSpec):
    """A service to start."""

    tls_cert: None = Field(None, description="Files of the server are not for requests to name: put a proxy before it.")
    tls_key: None = None
    name: Name | None = None

    def wanted(self) -> HostingSpec:
        """The service without what is not its own."""
        return HostingSpec.model_validate(self.model_dump(exclude={"name", "job"}))


class NewModels(Body):
    """What a service is to serve from now on."""

    models: tuple[str, ...] = HostingSpec.model_fields["models"]  # type: ignore[assignment]
    share: float | None = HostingSpec.model_fields["share"]  # type: ignore[assignment]


class ServiceListing(Listing):
    """Which services are wanted."""

    model: str | None = Field(None, description="Only with the model of this id or name, now or before.")
    state: str | None = Field(None, description="Only in this state.", examples=["running"])


@router.get("", response_model=Things[Hosted])
def list_services(ws: Ws, kept: Known, wanted: Annotated[ServiceListing, Query()]) -> Response:
    """Services, and how they stand."""
    parents = [parent_id(ws, "model", wanted.model, "model")]
    return page(ws, kept, "service", wanted, parents=parents, state=wanted.state)


@router.post("", status_code=202, dependencies=KEYED)
def create_service(ws: Ws, body: NewService, response: Response) -> JobAnswer:
    """Put a service into the queue; its job runs until it is stopped. Only admins let others reach it."""
    for where, wanted in {
        "host": body.host not in LOOPBACK,
        "public": body.public,
        "origins": bool(body.origins),
        "port": 0 < body.port < PRIVILEGED_PORTS,
    }.items():
        if wanted and ws.role != "admin":
            what = "Only admins let services be reached so from elsewhere."
            raise Forbidden(what, where=where, remedy="Leave it out.")
    return queued(services.submit(ws, body.wanted(), name=body.name, job=body.job), response)


@router.get("/{reference}", response_model=Hosted)
def get_service(ws: Ws, kept: Known, reference: str, request: Request) -> Response:
    """A service: what it serves and where, how it stands, and what it has answered."""
    return tagged(request, kept.require(ws, "service", exact(ws, reference, "service")).body)


@router.get("/{reference}/captured")
def get_captured(ws: Ws, reference: str) -> Captured:
    """The pictures that a service has kept for people to label, counted by class."""
    return services.captured(ws, exact(ws, reference, "service"))


@router.get("/{reference}/captured/archive", response_class=StreamingResponse)
def get_captured_archive(
    ws: Ws, reference: str, model: Annotated[str | None, Query(description="As which it is served.")] = None
) -> StreamingResponse:
    """Those pictures as a zip, with a folder for each class, as datasets are made of."""
    id = exact(ws, reference, "service")
    pieces = services.captured_pieces(ws, id, model)
    headers = {"Content-Disposition": f'attachment; filename="captured-{id}.zip"'}
    return StreamingResponse(pieces, media_type=archive.MEDIA_TYPES["zip"], headers=headers)


@router.post("/{reference}/resume", status_code=202, dependencies=KEYED)
def resume_service(ws: Ws, reference: str, response: Response, body: QueuedService | None = None) -> JobAnswer:
    """Start a service again that was stopped or has failed. To stop it, stop its job."""
    job = body.job if body is not None else ServiceJobSpec()
    return queued(services.submit_resume(ws, exact(ws, reference, "service"), job=job), response)


@router.post("/{reference}/models")
def update_service(ws: Ws, reference: str, body: NewModels) -> Hosted:
    """Have a service serve other models or versions, without a failed request; answers when it does."""
    return services.update(ws, exact(ws, reference, "service"), body.models, share=body.share)


@router.patch("/{reference}", response_model=Hosted)
def change_service(ws: Ws, reference: str, body: Changed, request: Request) -> Response:
    """Give a service another name while it is stopped, or other notes, or other tags."""
    return changed(request, ws, "service", reference, body)


@router.get("/{reference}/notes", response_model=NotesAnswer)
def get_notes(ws: Ws, reference: str, request: Request) -> Response:
    """What people have written about a service."""
    return noted(request, ws, "service", reference)


@router.get("/{reference}/tags", response_model=TagsAnswer)
def get_tags(ws: Ws, reference: str, request: Request) -> Response:
    """The tags of a service."""
    return labelled(request, ws, "service", reference)


@router.delete("/{reference}")
def delete_service(
    ws: Ws,
    kept: Known,
    reference: str,
    request: Request,
    *,
    with_pictures: Annotated[bool, Query(description="Also where it has kept pictures for people to label.")] = False,
) -> EntryAnswer:
    """Delete a service that is stopped; its models stay."""
    id = exact(ws, reference, "service")
    with unchanged(request, lambda: kept.require(ws, "service", id).body):
        return EntryAnswer.model_validate(services.delete(ws, id, with_pictures=with_pictures))
