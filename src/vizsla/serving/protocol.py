"""The Open Inference Protocol, version 2, by REST, with the extensions for binary tensors and for classes.

https://github.com/kserve/open-inference-protocol; the extensions are those of Triton's documentation.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import math
import struct
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import FastAPI, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from vizsla.errors import InvalidInput, TooLarge, from_dict
from vizsla.serving import bodies
from vizsla.serving.answering import Service, require_shape, shape_of, unless_gone
from vizsla.serving.batcher import Pixels
from vizsla.serving.bodies import Picture, Share
from vizsla.serving.measured import measured
from vizsla.serving.models import Served
from vizsla.serving.spec import COPIES, JSON_COPIES, Limits

LENGTH = struct.Struct("<I")
HEADER = "inference-header-content-length"
MAX_DIMENSIONS = 8
# Six pictures of 224 px; parsing more would hold up others, and is better sent as bytes.
MAX_PARTS = 1_000_000
# Elements that are looked at before others have their turn.
PIECE = 2**16
# It is not validated, which would copy it: who uses it looks at what it is.
Data = Annotated[Any, WithJsonSchema({"type": "array", "items": {}})]
Parameters = dict[str, Any]


class Tensor(BaseModel):
    """A tensor of a request. `pixels`, UINT8 [n, height, width, channels], or `pictures`, BYTES [n]: files."""

    model_config = ConfigDict(extra="forbid")

    name: str
    shape: list[Annotated[int, Field(ge=0, le=2**31)]] = Field(max_length=MAX_DIMENSIONS)
    datatype: str
    parameters: Parameters = {}
    data: Data = Field(None, description="row by row, nested or flat; of BYTES: base64")


class Wanted(BaseModel):
    """An output that is wanted, and how."""

    model_config = ConfigDict(extra="forbid")

    name: str
    parameters: Parameters = {}


class InferBody(BaseModel):
    """An inference."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field("", max_length=200)
    parameters: Parameters = {}
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Wanted] = Field([], max_length=1)


class Output(BaseModel):
    """A tensor of an answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = Field({}, description="`binary_data_size`, where the tensor is behind the JSON")
    data: list[float | str] | None = Field(None, description="row by row, flat")


class InferAnswer(BaseModel):
    """What a model computes."""

    id: str = Field("", description="as the request says, if it does")
    model_name: str
    model_version: str
    outputs: list[Output]


class Asked(NamedTuple):
    """An inference: the pixels, or else the files, that it is about."""

    body: InferBody
    pixels: Pixels | None
    files: list[bytes]


def install(app: FastAPI, service: Service) -> None:
    """Let an app speak the protocol."""
    _health(app, service)
    _about(app, service)

    described: dict[str, Any] = {
        "openapi_extra": BODY,
        "responses": ANSWER,
        "response_class": Response,
        "tags": ["inference protocol"],
    }

    @app.post("/v2/models/{model}/infer", **described)
    async def infer(request: Request, model: str, length: Length = None) -> Response:
        """Compute the probabilities of the classes for a batch."""
        return await _infer(service, service.models.choose(model), request, length)

    @app.post("/v2/models/{model}/versions/{version}/infer", **described)
    async def infer_version(request: Request, model: str, version: str, length: Length = None) -> Response:
        """The same with a certain version of a model."""
        return await _infer(service, service.models.choose(model, version), request, length)


Length = Annotated[int | None, Header(alias=HEADER, ge=0, description="Bytes of the JSON; binary tensors follow it.")]
BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferBody"}}, **BINARY},
    }
}
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What the model computes. Binary where that was asked for: JSON, and the tensor behind it.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferAnswer"}}, **BINARY},
    }
}


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
    with measured(service, served) as note, service.held.share() as share:
        if length is not None and length > limits.max_json_bytes:
            raise TooLarge(
                f"The JSON is longer than {limits.max_json_bytes / 1e6:g} MB.",
                where=HEADER,
                remedy="Send tensors as bytes behind it.",
            )
        share.take((JSON_COPIES - COPIES) * (length or 0))
        data = await bodies.whole(request, limits, share, json=length is None)
        answer = await unless_gone(request, _answered(service, served, data, length, share), limits.deadline_s)
        note(HTTPStatus.OK)
        return answer


async def _answered(service: Service, served: Served, data: bytes, length: int | None, share: Share) -> Response:
    asked = await service.parse(_asked, data, length, served, service.spec.limits)
    del data
    share.keep(min(share.num_bytes, asked.pixels.nbytes if asked.pixels is not None else sum(map(len, asked.files))))
    if asked.pixels is not None:
        rows = await service.compute(served, asked.pixels)
    else:
        rows = await _looked(service, served, asked.files, share)
    return _answer(served, asked.body, rows)


async def _looked(service: Service, served: Served, files: list[bytes], share: Share) -> npt.NDArray[np.float32]:
    pictures = [Picture("", data) for data in files]
    files.clear()
    seen = await service.look(served, pictures, share)
    for place, one in enumerate(seen):
        if one.error is not None:
            # A tensor has no room for a picture that failed. Whose fault it is stays as it is.
            told = {"what": f"Picture {place}: {one.error.what}", "where": f"inputs.data.{place}"}
            raise from_dict(one.error.as_dict() | told)
    return np.stack([one.row for one in seen if one.row is not None])


def _asked(data: bytes, length: int | None, served: Served, limits: Limits) -> Asked:
    """What is asked for, and of what; may take a while."""
    if length is not None and length > len(data):
        raise InvalidInput("The JSON is shorter than the header says.", where=HEADER)
    end = len(data) if length is None else length
    found = bodies.loaded(data[:end], max_parts=MAX_PARTS)
    bodies.require_small(found, max_items=MAX_DIMENSIONS, but="data")
    try:
        body = InferBody.model_validate(found)
    except ValidationError as error:
        raise bodies.wrong(error) from None
    tensor = body.inputs[0]
    binary = _binary(tensor, memoryview(data)[end:])
    if (tensor.name, tensor.datatype) == ("pictures", "BYTES"):
        asked = Asked(body, None, _files(tensor, binary, limits))
    elif (tensor.name, tensor.datatype) == ("pixels", "UINT8"):
        require_shape(served, tensor.shape)
        if tensor.shape[0] > limits.max_pictures:
            raise bodies.too_many(limits)
        asked = Asked(body, _pixels(tensor, binary), [])
    else:
        raise InvalidInput(
            f"The model takes no input {tensor.name[:60]!r} of {tensor.datatype[:20]}.",
            where="inputs",
            remedy="It takes `pixels` of UINT8, or `pictures` of BYTES.",
        )
    tensor.data = None
    return asked


def _binary(tensor: Tensor, binary: memoryview) -> memoryview | None:
    """The bytes of a tensor that came behind the JSON; None: it is in the JSON."""
    num_bytes = tensor.parameters.get("binary_data_size")
    if num_bytes is None:
        if binary:
            raise InvalidInput(
                f"There are {len(binary):,} bytes behind the JSON that belong to no tensor.",
                where="inputs.parameters",
                remedy="Say in `binary_data_size` of the input how many are its own.",
            )
        return None
    if type(num_bytes) is not int or num_bytes != len(binary) or tensor.data is not None:
        raise InvalidInput("The bytes behind the JSON are not those of the tensor.", where="inputs.parameters")
    return binary


def _pixels(tensor: Tensor, binary: memoryview | None) -> Pixels:
    """Pixels of the shape that the tensor says, which is one that the model takes."""
    num = math.prod(tensor.shape)
    raw = binary if binary is not None else _integers(tensor.data, num)
    if len(raw) != num:
        raise InvalidInput("The data do not have as many elements as the shape says.", where="inputs.data")
    return np.frombuffer(raw, np.uint8).reshape(tensor.shape)


def _integers(data: Any, most: int) -> bytes:
    """The numbers in lists, or in lists of lists, of which there are so many at most."""
    wrong = InvalidInput("Pixels are whole numbers from 0 to 255, in lists of equal lengths.", where="inputs.data")
    for _ in range(MAX_DIMENSIONS):
        if not isinstance(data, list) or not data:
            raise wrong
        if len(data) > most:
            raise InvalidInput("The data have more elements than the shape says.", where="inputs.data")
        if not isinstance(data[0], list):
            break
        if any(type(one) is not list or len(one) != len(data[0]) for one in data):
            raise wrong
        data = list(itertools.chain.from_iterable(data))
    found = bytearray()
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        if set(map(type, piece)) != {int}:
            raise wrong
        try:
            found += bytes(piece)
        except ValueError:
            raise wrong from None
    return bytes(found)


def _files(tensor: Tensor, binary: memoryview | None, limits: Limits) -> list[bytes]:
    if binary is not None:
        found = _elements(binary, limits)
    elif not isinstance(tensor.data, list):
        raise InvalidInput("There is no picture to look at.", where="inputs.data")
    elif len(tensor.data) > limits.max_pictures:
        raise bodies.too_many(limits)
    else:
        found = [_from_base64(one) for one in tensor.data]
    if tensor.shape not in ([len(found)], [len(found), 1]):
        raise InvalidInput(f"There are {len(found)} pictures, and the shape is {tensor.shape}.", where="inputs.shape")
    if not found:
        raise InvalidInput("There is no picture to look at.", where="inputs.shape")
    return found


def _elements(raw: memoryview, limits: Limits) -> list[bytes]:
    found: list[bytes] = []
    place = 0
    while place < len(raw):
        if len(found) == limits.max_pictures:
            raise bodies.too_many(limits)
        if place + LENGTH.size > len(raw):
            raise InvalidInput("The bytes end within a length.", where="inputs.data")
        (num_bytes,) = LENGTH.unpack_from(raw, place)
        place += LENGTH.size
        if place + num_bytes > len(raw):
            raise InvalidInput("The bytes end within a picture.", where="inputs.data")
        found.append(bytes(raw[place : place + num_bytes]))
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
