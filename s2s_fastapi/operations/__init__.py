"""What an operator runs: a token as a receiver judges it, the checks of a service's set-up, and why a call is accepted or refused."""
