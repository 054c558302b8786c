"""A token goes out.

service_client (what FastAPI injects) -> auth (httpx flow) -> token_source (the cache) -> shared_token (one token, kept) ->
token_request (one exchange) -> credentials (client authentication) and granted (is it what we wanted?). token_errors explains
Keycloak's refusals.
"""
