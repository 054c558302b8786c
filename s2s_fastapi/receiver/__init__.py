"""A token comes in: middleware -> bearer -> jws -> verifier (with its keys) -> requirements -> answers."""
