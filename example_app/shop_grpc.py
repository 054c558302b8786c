"""Story 2 over gRPC, the caller: a channel whose calls carry this service's token."""

import os

import grpc
import grpc.aio

from s2s_fastapi import ServiceTokenAuth

TARGET = os.environ.get("NOTIFICATIONS_TARGET", "notification-service:50051")

# In clear here; across machines write https, and give the channel credentials.
notifications = ServiceTokenAuth(f"http://{TARGET}", audience="notification-service")


def channel() -> grpc.Channel:
    """Return a channel to the notification service, for threads."""
    return notifications.for_grpc().channel(TARGET)


def async_channel() -> grpc.aio.Channel:
    """Return one for the running event loop."""
    return notifications.for_grpc().aio_channel(TARGET)
