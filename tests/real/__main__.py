"""``make keycloak``: a server with the realms of the stories, to play with until Ctrl-C."""

import time

from tests.real.server import NEWEST, Keycloak


def main() -> None:
    """Start the newest server, say how to reach it, and wait."""
    print(f"Starting Keycloak {NEWEST}, about 20 s ...", flush=True)
    with Keycloak(NEWEST) as keycloak:
        print(f"Keycloak {NEWEST} at {keycloak.url}, administrator {keycloak.admin.login}\n")
        for name, client in (
            ("corp", "chat-app-service"),
            ("techstore", "shop-api"),
            ("abc", "alice"),
            ("workshop", "assistant"),
            ("vault", "alice"),
        ):
            print(f"# {client} of realm {name}")
            for variable, value in keycloak.realm(name).environment(client).items():
                print(f"export {variable}={value}")
            print()
        print("Ctrl-C ends it and throws it away.", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
