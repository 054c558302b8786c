"""A token goes out.

service_client (what FastAPI injects) -> auth (httpx flow) -> token_source (the cache) -> shared_token (one token, kept) ->
token_request (one request) -> token_endpoint -> credentials (client authentication) and granted (is it what we wanted?). token_errors
explains Keycloak's refusals. On behalf of a user, exchange stands in the place of shared_token and token_request.
"""
