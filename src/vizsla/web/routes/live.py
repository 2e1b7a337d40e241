"""`/api/v1/live`: a socket that tells what happens in the runs and jobs that a client watches (see docs/rest.md)."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool

from vizsla.errors import DatabaseUnavailable, Forbidden, InvalidInput, NotFound, NotSignedIn, VizslaError
from vizsla.store.workspace import Workspace
from vizsla.web import auth
from vizsla.web.live import POLL_S, EventsSource, JobsSource, Key, Live, LogSource, Reader, Source, message
from vizsla.web.schema import Body, Ws, exact
from vizsla.web.steady import Steady

router = APIRouter()

MAX_WATCHED = 200
# A client that does not take a message within this time is too slow, or gone.
SLOW_S = 20.0
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013


class Wish(Body):
    """What a client sends."""

    do: Literal["watch", "leave"]
    what: Literal["run", "job", "jobs", "log"]
    id: str = Field("", max_length=100, description="of a run: its id or name; of a job: its id; of a log: either")
    after: str | None = Field(None, pattern="^[0-9]{1,15}$", description="the `next` that it knows; null: from now on")


@dataclass
class Watch:
    """What a client watches, and how far it has been told."""

    reader: Reader
    place: int


@router.websocket("/live")
async def live(socket: WebSocket, ws: Ws) -> None:
    """Tell a client what happens in what it watches, until it goes or the server ends.

    Whether it comes from here and who asks was looked at before, as for every request (see `web.guard`).
    """
    await socket.accept()
    await Client(socket, ws).serve()


def _found(ws: Workspace, wish: Wish) -> tuple[Key, Source]:
    """What a client means, and where it is told."""
    if wish.what == "jobs":
        return ("jobs", ""), JobsSource(ws)
    if wish.what == "run":
        id = exact(ws, wish.id, "run")
        return ("run", id), EventsSource(("run", id), ws.folder("run", id))
    if wish.what == "log":
        return _log(ws, wish.id)
    job = ws.store.jobs.get(wish.id)
    return ("job", job.id), EventsSource(("job", job.id), ws.folder(job.kind, job.thing))


def _log(ws: Workspace, id: str) -> tuple[Key, Source]:
    """The log of a job, or of a run, which outlives its jobs."""
    with contextlib.suppress(NotFound):
        job = ws.store.jobs.get(id)
        return (key := ("log", job.id)), LogSource(key, ws, job.kind, job.thing)
    run = exact(ws, id, "run")
    return (key := ("log", run)), LogSource(key, ws, "run", run)


class Client:
    """One connection."""

    def __init__(self, socket: WebSocket, ws: Workspace) -> None:
        self._socket = socket
        self._ws = ws
        self._live: Live = socket.app.state.live
        self._watched: dict[Key, Watch] = {}
        self._more = asyncio.Event()
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Heed what the client asks for, and tell it what happens, until one of the two is over."""
        tasks = {asyncio.create_task(doing) for doing in (self._listen(), self._tell(), self._stay_admitted())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(WebSocketDisconnect):
                    task.result()
        except TimeoutError:
            await self._close(TRY_AGAIN_LATER, "too slow")
        except (NotSignedIn, Forbidden) as error:
            await self._close(POLICY_VIOLATION, error.kind)
        except VizslaError as error:
            await self._close(TRY_AGAIN_LATER, error.kind)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for key in list(self._watched):
                self._leave(key)

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(Exception):  # who takes nothing does not take this either
            await asyncio.wait_for(self._socket.close(code, reason), 1)

    async def _stay_admitted(self) -> None:
        admitted = Steady(lambda: auth.admit(self._socket, self._ws), None)
        while True:
            await asyncio.sleep(auth.ADMITTED_FOR_S)
            await run_in_threadpool(admitted.look)

    async def _listen(self) -> None:
        while True:
            try:
                await self._heed(await self._wish())
            except VizslaError as error:
                await self._refuse(error)

    async def _wish(self) -> Wish:
        try:
            return Wish.model_validate_json(await self._socket.receive_text())
        except (KeyError, TypeError):
            raise InvalidInput("A message is text, not bytes.") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise InvalidInput(first["msg"], where=".".join(map(str, first["loc"]))) from None

    async def _heed(self, wish: Wish) -> None:
        key, source = await run_in_threadpool(_found, self._ws, wish)
        if wish.do == "leave":
            self._leave(key)
            return
        if len(self._watched) >= MAX_WATCHED and key not in self._watched:
            raise InvalidInput(f"No more than {MAX_WATCHED} things are watched at once.", remedy="Leave some first.")
        self._leave(key)
        reader = self._live.watch(key, source, self._more.set)
        try:
            place = await run_in_threadpool(reader.source.place, int(wish.after) if wish.after else None)
            await self._send(message("watching", what=key[0], id=key[1], next=str(place)))
        except BaseException:
            self._live.leave(key, self._more.set)
            raise
        self._watched[key] = Watch(reader, place)  # from here on it is left when the connection ends
        self._more.set()

    def _leave(self, key: Key) -> None:
        if self._watched.pop(key, None) is not None:
            self._live.leave(key, self._more.set)

    async def _tell(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            # A piece of each in turn: what has much to tell does not hold up the others.
            behind = True
            while behind:
                behind = False
                for key, watch in list(self._watched.items()):
                    behind |= await self._tell_piece(key, watch)

    async def _tell_piece(self, key: Key, watch: Watch) -> bool:
        """Tell the next that there is of one thing; returns whether there was anything."""
        end = watch.reader.end
        if end is None:
            self._leave(key)
            await self._send(message("gone", what=key[0], id=key[1]))
            return False
        if watch.place >= end:
            return False
        try:
            piece = await watch.reader.after(watch.place)
        except InvalidInput as error:
            self._leave(key)
            await self._refuse(error)
            return False
        except DatabaseUnavailable:  # asked again soon; when it is away for long, nobody is admitted any more
            asyncio.get_running_loop().call_later(POLL_S, self._more.set)
            return False
        if piece.next == watch.place or self._watched.get(key) is not watch:
            return False
        watch.place = piece.next
        await self._send(piece.message)
        return True

    async def _refuse(self, error: VizslaError) -> None:
        await self._send(message("problem", kind=error.kind, detail=error.what, where=error.where, remedy=error.remedy))

    async def _send(self, text: str) -> None:
        async with self._sending:
            await asyncio.wait_for(self._socket.send_text(text), SLOW_S)
