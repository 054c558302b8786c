"""The fixtures of the receiving side."""

from tests.kit.receiving import client, make_app, nothing_to_report_at_exit, observed, options, realm, service, user

__all__ = ["client", "make_app", "nothing_to_report_at_exit", "observed", "options", "realm", "service", "user"]
