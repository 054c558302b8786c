"""shop-api as its example has it, but without a warm-up: the token request is part of the first checkout's trace.

With ``INSTRUMENTED=true`` the standard instrumentations of FastAPI and httpx are switched on, as an operator would do it.
"""

import os

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

from example_app.shop_api import checkout, healthz, notifications
from s2s_fastapi import service_lifespan

app = FastAPI(lifespan=service_lifespan(notifications, warm_up=False))
app.get("/healthz")(healthz)
app.post("/checkout")(checkout)

if os.environ.get("INSTRUMENTED") == "true":
    HTTPXClientInstrumentor().instrument()
    FastAPIInstrumentor.instrument_app(app)
