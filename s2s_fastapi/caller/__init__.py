"""A token goes out: auth (httpx flow) -> tokens (source and cache) -> credentials (client authentication) -> grant (asked and granted)."""
