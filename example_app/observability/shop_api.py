"""shop-api of story 2 without a warm-up: the first checkout waits for its token, and its trace shows how Keycloak made it."""

from fastapi import FastAPI

from example_app.shop_api import checkout, healthz, notifications
from s2s_fastapi import service_lifespan

app = FastAPI(title="Shop API", lifespan=service_lifespan(notifications, warm_up=False))
app.get("/healthz")(healthz)
app.post("/checkout")(checkout)
