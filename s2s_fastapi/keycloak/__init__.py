"""What both sides know of the server: its URLs, and the sentences that say what to change in it."""
