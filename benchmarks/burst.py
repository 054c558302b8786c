"""How many token requests a cold burst makes: tasks on several loops and threads at once, against a real socket."""

import asyncio
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from s2s_fastapi import KeycloakSettings, ServiceTokenAuth
from tests.realm import Realm

requests: list[str] = []


class TokenEndpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        requests.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.2)
        body = json.dumps({"access_token": Realm().token(), "token_type": "Bearer", "expires_in": 300}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def burst(auth: ServiceTokenAuth, threads: int, loops: int, tasks: int) -> int:
    async def gather() -> list[str]:
        return list(await asyncio.gather(*(auth.atoken() for _ in range(tasks // loops))))

    with ThreadPoolExecutor(threads + loops) as pool:
        waiting = [pool.submit(auth.token) for _ in range(threads)]
        running = [pool.submit(asyncio.run, gather()) for _ in range(loops)]
        tokens = [future.result() for future in waiting] + [token for future in running for token in future.result()]
    return len(set(tokens))


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), TokenEndpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for number, (threads, loops, tasks) in enumerate(((1, 1, 0), (0, 1, 100), (500, 3, 501), (1000, 4, 1000))):
        settings = KeycloakSettings(
            url=f"http://127.0.0.1:{server.server_port}", realm="corp", client_id=f"caller-{number}", client_secret="s"
        )
        requests.clear()
        began = time.perf_counter()
        burst(ServiceTokenAuth(settings=settings), threads, loops, tasks)
        seconds = time.perf_counter() - began
        print(
            f"{threads:5} threads + {tasks:5} tasks on {loops} loops: {len(requests)} token request(s), {seconds:.2f} s"
        )
    server.shutdown()


if __name__ == "__main__":
    main()
