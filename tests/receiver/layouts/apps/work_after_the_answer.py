"""Dependencies with ``yield`` at both scopes, background tasks, streams, and state of the lifespan."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, StreamingResponse

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, TRUST

Chat = Annotated[Principal, Depends(require_caller("chat-app-service"))]


class State(TypedDict):
    sessions: list[str]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    sessions: list[str] = []

    @app.get("/late")
    async def late(caller: Chat) -> str:
        return caller.client_id

    yield {"sessions": sessions}
    sessions.clear()


async def session(caller: Chat, request: Request) -> AsyncIterator[list[str]]:
    sessions: list[str] = request.state.sessions
    sessions.append(caller.client_id)
    try:
        yield sessions
    finally:
        sessions.remove(caller.client_id)


def sync_session(caller: Chat) -> Iterator[str]:
    yield caller.client_id


Session = Annotated[list[str], Depends(session)]
app = FastAPI(lifespan=lifespan)
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@app.get("/session")
async def use(session: Session, short: Annotated[str, Depends(sync_session, scope="function")]) -> bool:
    return session == [short]


@app.post("/tasks", status_code=202)
async def start(tasks: BackgroundTasks, session: Session) -> None:
    tasks.add_task(session.append, "chat-app-service")
    tasks.add_task(session.pop)


@app.post("/task", response_model=None)
async def start_one(caller: Chat) -> Response:
    return JSONResponse({}, background=BackgroundTask(asyncio.sleep, 0))


@app.get("/stream")
async def stream(session: Session) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"{session[0]} {number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


ANSWERS = [
    ("GET /session", FOR_CHAT),
    ("POST /tasks", FOR_CHAT),
    ("POST /task", FOR_CHAT),
    ("GET /stream", FOR_CHAT),
    ("GET /late", FOR_CHAT),
]
