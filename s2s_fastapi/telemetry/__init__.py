"""What is reported of the work: decisions in a log, spans of what took time, metrics. Never a token, never a secret."""

from s2s_fastapi.telemetry.decision_log import DecisionLog
from s2s_fastapi.telemetry.observer import Observer

__all__ = ["DecisionLog", "Observer"]
