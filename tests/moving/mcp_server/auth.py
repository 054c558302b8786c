from fastapi import FastAPI

from s2s_fastapi import ServiceAuthMiddleware, require_service, require_user

anybody = require_user() | require_service()


def protect(app: FastAPI, url: str) -> None:
    """Accept users and services with a token for the tools, and say where tokens come from."""
    app.add_middleware(ServiceAuthMiddleware, users=True, public_paths=["/health"], public_url=url, resource=True)
