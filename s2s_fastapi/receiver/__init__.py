"""A token comes in: middleware -> bearer -> verifier (accepted tokens, or jws -> keys -> checks) -> requirement -> answers."""
