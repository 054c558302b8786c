"""The receiver of the mistakes as an app that can be named on the command line."""

from fastapi import FastAPI

from s2s_fastapi import DOCS, ServiceAuthMiddleware
from tests.kit.console import RECEIVER
from tests.kit.diagnosis import add_routes

app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, audience=RECEIVER, public_paths=[*DOCS, "/healthz"])
add_routes(app)


@app.get("/healthz")
async def healthz() -> str:
    return "ok"
