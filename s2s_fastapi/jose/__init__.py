"""What an access token and a proof have in common: their compact form, their algorithms and their keys (RFC 7515, RFC 7517, RFC 7518)."""
