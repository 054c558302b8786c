"""The suite of attacks: what broke similar packages, tried on your own app.

- `attack_tests(app)` makes the tests of a test file. `attack` returns a report. ``s2s-fastapi attack module:app`` is the command.
- The cases are data: the folder ``cases``, explained in docs/conformance.
"""

from s2s_fastapi.testing.attack.asgi import Answer, Outgoing
from s2s_fastapi.testing.attack.cases import Case, all_cases
from s2s_fastapi.testing.attack.report import Report, Result, RouteReport
from s2s_fastapi.testing.attack.suite import attack, attack_tests
from s2s_fastapi.testing.attack.target import Target, TrustedIssuer

__all__ = [
    "Answer",
    "Case",
    "Outgoing",
    "Report",
    "Result",
    "RouteReport",
    "Target",
    "TrustedIssuer",
    "all_cases",
    "attack",
    "attack_tests",
]
