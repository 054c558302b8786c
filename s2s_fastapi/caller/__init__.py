"""A token goes out.

clients (what FastAPI injects) -> auth (httpx flow) -> token_source (the cache) -> shared_token (one token, kept) -> credentials
(client authentication) and grant (asked and granted), with token_errors for Keycloak's refusals.
"""
