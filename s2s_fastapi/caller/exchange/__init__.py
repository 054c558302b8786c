"""A user's token becomes one that this service may send on (RFC 8693; Keycloak's standard token exchange, 26.2 and newer).

exchanged_tokens (the store: one exchange for all who wait, and until when it counts) -> exchange_request (one exchange, and the check of
its answer) -> subject (the user's token).
"""
