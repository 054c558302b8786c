"""What uvicorn serves while wrk asks: ``uvicorn --factory benchmarks.served:guarded``, the settings in the environment."""

from fastapi import FastAPI

from benchmarks import apps
from s2s_fastapi import KeycloakSettings

bare = apps.bare
floor = apps.floor


def guarded() -> FastAPI:
    return apps.guarded(KeycloakSettings())
