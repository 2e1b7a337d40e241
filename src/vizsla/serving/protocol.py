"""The Open Inference Protocol, version 2, by REST, with the extensions for binary tensors and for classes.

https://github.com/kserve/open-inference-protocol; the extensions are those of Triton's documentation.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import FastAPI, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vizsla.errors import InvalidInput
from vizsla.serving import bodies
from vizsla.serving.answering import Service, require_shape, shape_of, unless_gone
from vizsla.serving.bodies import Picture
from vizsla.serving.measured import measured
from vizsla.serving.models import Served

LENGTH = struct.Struct("<I")
HEADER = "inference-header-content-length"
Data = list[Any]


class Tensor(BaseModel):
    """A tensor of a request. `pixels`, UINT8 [n, height, width, channels], or `pictures`, BYTES [n]: files."""

    model_config = ConfigDict(extra="forbid")

    name: str
    shape: list[Annotated[int, Field(ge=0, le=2**31)]]
    datatype: str
    parameters: dict[str, Any] = {}
    data: Data | None = Field(None, description="row by row, nested or flat; of BYTES: base64")


class Wanted(BaseModel):
    """An output that is wanted, and how."""

    model_config = ConfigDict(extra="forbid")

    name: str
    parameters: dict[str, Any] = {}


class InferBody(BaseModel):
    """An inference."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field("", max_length=200)
    parameters: dict[str, Any] = {}
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Wanted] = Field([], max_length=1)


class Asked(NamedTuple):
    """An inference, with the bytes that came behind its JSON."""

    body: InferBody
    binary: bytes


def install(app: FastAPI, service: Service) -> None:
    """Let an app speak the protocol."""
    _health(app, service)
    _about(app, service)

    @app.post("/v2/models/{model}/infer", openapi_extra=BODY, response_class=Response, tags=["inference protocol"])
    async def infer(request: Request, model: str, length: Length = None) -> Response:
        """Compute the probabilities of the classes for a batch."""
        return await _infer(service, service.models.choose(model), request, length)

    @app.post(
        "/v2/models/{model}/versions/{version}/infer",
        openapi_extra=BODY,
        response_class=Response,
        tags=["inference protocol"],
    )
    async def infer_version(request: Request, model: str, version: str, length: Length = None) -> Response:
        """The same with a certain version of a model."""
        return await _infer(service, service.models.choose(model, version), request, length)


Length = Annotated[int | None, Header(alias=HEADER, ge=0, description="Bytes of the JSON; binary tensors follow it.")]
BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": InferBody.model_json_schema()}}}}


def _health(app: FastAPI, service: Service) -> None:
    @app.get("/v2/health/live", tags=["health"])
    async def live() -> dict[str, bool]:
        """Whether it lives: no pass through a model hangs. 503 otherwise."""
        service.require_alive()
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"])
    async def ready() -> dict[str, bool]:
        """Whether it takes requests: its models are loaded, it lives, and it is not about to end. 503 otherwise."""
        service.require_ready()
        return {"ready": True}

    @app.get("/v2/models/{model}/ready", tags=["health"])
    async def model_ready(model: str) -> dict[str, Any]:
        """Whether a model takes requests."""
        service.require_ready()
        return {"name": service.models.choose(model).name, "ready": True}

    @app.get("/v2/models/{model}/versions/{version}/ready", tags=["health"])
    async def version_ready(model: str, version: str) -> dict[str, Any]:
        """Whether a version of a model takes requests."""
        service.require_ready()
        return {"name": service.models.choose(model, version).name, "ready": True}


def _about(app: FastAPI, service: Service) -> None:
    @app.get("/v2", tags=["inference protocol"])
    async def server() -> dict[str, Any]:
        """What this is."""
        return {
            "name": service.spec.name,
            "version": version("vizsla"),
            "extensions": ["binary_tensor_data", "classification"],
        }

    @app.get("/v2/models/{model}", tags=["inference protocol"])
    async def model(model: str) -> dict[str, Any]:
        """What a model takes and gives."""
        return _model(service, service.models.versions(model)[-1])

    @app.get("/v2/models/{model}/versions/{version}", tags=["inference protocol"])
    async def model_version(model: str, version: str) -> dict[str, Any]:
        """What a version of a model takes and gives."""
        return _model(service, service.models.choose(model, version))


def _model(service: Service, served: Served) -> dict[str, Any]:
    return {
        "name": served.name,
        "versions": [one.version for one in service.models.versions(served.name)],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, *shape_of(served)]},
            {"name": "pictures", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, len(served.card.labels)]}],
        "parameters": {"labels": list(served.card.labels)},
    }


async def _infer(service: Service, served: Served, request: Request, length: int | None) -> Response:
    limits = service.spec.limits
    with measured(service, served) as note:
        async with bodies.body(request, limits, service.held) as data:
            asked = _asked(data, length)
            rows = await unless_gone(request, _rows(service, served, asked), limits.deadline_s)
        answer = _answer(served, asked.body, rows)
        note(HTTPStatus.OK)
        return answer


async def _rows(service: Service, served: Served, asked: Asked) -> npt.NDArray[np.float32]:
    """float32 (n, classes): what is wanted of a batch."""
    tensor = asked.body.inputs[0]
    if (tensor.name, tensor.datatype) == ("pictures", "BYTES"):
        return await _looked(service, served, _files(tensor, asked.binary))
    if (tensor.name, tensor.datatype) != ("pixels", "UINT8"):
        raise InvalidInput(
            f"The model takes no input {tensor.name[:60]!r} of {tensor.datatype[:20]}.",
            where="inputs",
            remedy="It takes `pixels` of UINT8, or `pictures` of BYTES.",
        )
    pixels = _pixels(tensor, asked.binary)
    require_shape(served, pixels)
    if len(pixels) > service.spec.limits.max_pictures:
        raise bodies.too_many(service.spec.limits)
    return await service.compute(served, pixels)


async def _looked(service: Service, served: Served, files: list[bytes]) -> npt.NDArray[np.float32]:
    if not files:
        raise InvalidInput("There is no picture to look at.", where="inputs.shape")
    if len(files) > service.spec.limits.max_pictures:
        raise bodies.too_many(service.spec.limits)
    seen = await service.look(served, [Picture("", data) for data in files])
    for place, one in enumerate(seen):
        if one.error is not None:
            # A tensor has no room for a picture that failed.
            raise InvalidInput(f"Picture {place}: {one.error.what}", where=f"inputs.data.{place}")
    return np.stack([one.row for one in seen if one.row is not None])


def _asked(data: bytes, length: int | None) -> Asked:
    if length is not None and length > len(data):
        raise InvalidInput("The JSON is shorter than the header says.", where=HEADER)
    end = len(data) if length is None else length
    try:
        return Asked(InferBody.model_validate(orjson.loads(data[:end])), data[end:])
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"This is no JSON: {error}"[:300], where="body") from None
    except ValidationError as error:
        raise bodies.wrong(error) from None


def _binary(tensor: Tensor, binary: bytes) -> bytes | None:
    """The bytes of a tensor that came behind the JSON; None: it is in the JSON."""
    num_bytes = tensor.parameters.get("binary_data_size")
    if num_bytes is None:
        return None
    if num_bytes != len(binary) or tensor.data is not None:
        raise InvalidInput("The bytes behind the JSON are not those of the tensor.", where="inputs.parameters")
    return binary


def _pixels(tensor: Tensor, binary: bytes) -> npt.NDArray[np.uint8]:
    raw = _binary(tensor, binary)
    try:
        found = np.frombuffer(raw, np.uint8) if raw is not None else _integers(tensor.data or [])
        return found.reshape(tensor.shape)
    except ValueError:
        raise InvalidInput(
            f"The data do not have {math.prod(tensor.shape):,} elements, as the shape says.", where="inputs.data"
        ) from None


def _integers(data: Data) -> npt.NDArray[np.uint8]:
    try:
        found = np.array(data)
    except ValueError:
        found = np.array([])
    if found.dtype.kind not in "iu" or not len(found) or found.min() < 0 or found.max() > 255:
        raise InvalidInput("Pixels are whole numbers from 0 to 255, in lists of equal lengths.", where="inputs.data")
    return found.astype(np.uint8)


def _files(tensor: Tensor, binary: bytes) -> list[bytes]:
    raw = _binary(tensor, binary)
    found = _elements(raw) if raw is not None else [_from_base64(one) for one in tensor.data or []]
    if tensor.shape not in ([len(found)], [len(found), 1]):
        raise InvalidInput(f"There are {len(found)} pictures, and the shape is {tensor.shape}.", where="inputs.shape")
    return found


def _elements(raw: bytes) -> list[bytes]:
    found, place = [], 0
    while place < len(raw):
        if place + LENGTH.size > len(raw):
            raise InvalidInput("The bytes end within a length.", where="inputs.data")
        (num_bytes,) = LENGTH.unpack_from(raw, place)
        place += LENGTH.size
        if place + num_bytes > len(raw):
            raise InvalidInput("The bytes end within a picture.", where="inputs.data")
        found.append(raw[place : place + num_bytes])
        place += num_bytes
    return found


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, binascii.Error, ValueError):
        raise InvalidInput("In JSON, files are strings of base64.", where="inputs.data") from None


def _answer(served: Served, body: InferBody, rows: npt.NDArray[np.float32]) -> Response:
    wanted = body.outputs[0] if body.outputs else Wanted(name="probabilities")
    if wanted.name != "probabilities":
        raise InvalidInput(f"The model has no output {wanted.name[:60]!r}: it has `probabilities`.", where="outputs")
    output: dict[str, Any] = {"name": wanted.name, "datatype": "FP32", "shape": list(rows.shape)}
    raw = b""
    if (num_classes := wanted.parameters.get("classification", 0)) and isinstance(num_classes, int):
        output |= _classes(served, rows, max(1, min(num_classes, rows.shape[1])))
    elif wanted.parameters.get("binary_data", body.parameters.get("binary_data_output", False)) is True:
        raw = rows.astype("<f4").tobytes()
        output["parameters"] = {"binary_data_size": len(raw)}
    else:
        output["data"] = rows.ravel()
    answer = {"model_name": served.name, "model_version": served.version, "outputs": [output]}
    head = orjson.dumps(answer | ({"id": body.id} if body.id else {}), option=orjson.OPT_SERIALIZE_NUMPY)
    if not raw:
        return Response(head, media_type="application/json")
    return Response(head + raw, media_type="application/octet-stream", headers={HEADER: str(len(head))})


def _classes(served: Served, rows: npt.NDArray[np.float32], top: int) -> dict[str, Any]:
    """As `probability:place:label`, the best first."""
    places = np.argsort(-rows, axis=1, kind="stable")[:, :top]
    data = [f"{row[k]:.6f}:{k}:{served.card.labels[k]}" for row, best in zip(rows, places, strict=True) for k in best]
    return {"datatype": "BYTES", "shape": [len(rows), top], "data": data}
