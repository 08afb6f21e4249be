"""HELM's two caches inside a server of your own: your model, your HTTP, your threads. `POST {"user", "items", "candidates"}`.

Run it with `python examples/embed_in_your_server.py`; docs/embedding.md explains it.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from agents.profiles import load_profile
from agents.runtime.device.table import HostTable, ensure_table
from agents.runtime.hosted import HostedCaches


class YourModel(torch.nn.Module):
    """One layer of attention. Keys and values of a token depend on nothing after it, so they can be kept and used again."""

    def __init__(self, dim: int, token_floats: int) -> None:
        super().__init__()
        self.key_value = torch.nn.Linear(dim, token_floats)
        self.query = torch.nn.Linear(dim, token_floats // 2)

    @torch.inference_mode()
    def forward(self, new_rows: torch.Tensor, prefix: torch.Tensor, candidate_rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of the candidates, and keys and values of the new tokens."""
        fresh = self.key_value(new_rows)
        keys, values = torch.cat((prefix, fresh)).chunk(2, dim=1)
        queries = self.query(candidate_rows)
        attended = torch.nn.functional.silu(queries @ keys.T / 16) @ values / len(keys)
        return (attended * queries).sum(1), fresh


def make_server(caches: HostedCaches, model: YourModel, port: int = 0) -> ThreadingHTTPServer:
    """A server with one thread per connection; all of them lease from the same pool."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with caches.lease(asked["user"], asked["items"], asked["candidates"]) as lease:
                scores, fresh = model(lease.new_rows, lease.prefix, lease.candidate_rows)
                lease.keep(fresh)
            body = json.dumps({"scores": scores.tolist(), "cached_tokens": lease.cached_tokens}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    profile = load_profile("cpu-tiny")
    table = HostTable(ensure_table(Path(".helm/tables"), profile.rows, profile.model.dim, seed=1))
    with HostedCaches(profile, table) as your_caches:  # control=ControlPlane(...) puts it on the console
        make_server(your_caches, YourModel(profile.model.dim, profile.kv_token_bytes // 4), 8000).serve_forever()
