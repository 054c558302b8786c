"""Story 2 with a token inside the message: the worker runs a task only for the service that may ask for it."""

import os
from typing import Any

from celery import Celery, Task

from s2s_fastapi import Requirement, ServiceTokenAuth, TokenVerifier, require_caller

TOKEN = "service_token"  # the header of the message
QUEUED = 60  # seconds a message may wait; its token has to live as long


def only_for(requirement: Requirement, verifier: TokenVerifier) -> "type[Task[..., Any]]":
    """Return a base for tasks that are run only if the requirement is met."""

    class ServiceTask(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            requirement.check(verifier.verify(str(self.request.get(TOKEN, ""))))
            return super().__call__(*args, **kwargs)

    return ServiceTask


app = Celery("notifications", broker=os.environ.get("BROKER_URL", "memory://"))


@app.task(base=only_for(require_caller("shop-api"), TokenVerifier()))
def send(text: str) -> str:
    """Send a notification."""
    return text


def ask_for(text: str, auth: ServiceTokenAuth) -> None:
    """Queue a notification, as the shop does."""
    send.apply_async((text,), headers={TOKEN: auth.token(min_validity=QUEUED)}, expires=QUEUED)
