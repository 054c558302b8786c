"""Metrics as a mounted ASGI app of the client, and as a route of the instrumentator."""

from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry, Counter, make_asgi_app
from prometheus_fastapi_instrumentator import Instrumentator

from s2s_fastapi import ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, FOR_SERVICES, TRUST

registry, own = CollectorRegistry(), CollectorRegistry()
calls = Counter("calls", "Calls", registry=registry)

app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, public_paths=["/scraped"], **TRUST)
app.mount("/metrics", make_asgi_app(registry=registry))
app.mount("/guarded", require_caller("chat-app-service").guard(make_asgi_app(registry=registry)))


@app.get("/x", dependencies=[Depends(require_caller("chat-app-service"))])
def x() -> str:
    calls.inc()
    return "x"


Instrumentator(registry=own).instrument(app).expose(app, endpoint="/scraped")

ANSWERS = [
    ("GET /x", FOR_CHAT),
    ("GET /metrics/", FOR_SERVICES),
    ("GET /guarded/", FOR_CHAT),
    ("GET /scraped", FOR_ALL),
]
