"""notification-service as its example has it, but without a warm-up: the keys are loaded in the first notification's trace.

With ``INSTRUMENTED=true`` the standard instrumentations of FastAPI and httpx are switched on, as an operator would do it.
"""

import os

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

from example_app.notification_service import healthz, send
from s2s_fastapi import ServiceAuthMiddleware

app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz"], warm_up=False)
app.get("/healthz")(healthz)
app.post("/notifications", status_code=202)(send)

if os.environ.get("INSTRUMENTED") == "true":
    HTTPXClientInstrumentor().instrument()
    FastAPIInstrumentor.instrument_app(app)
