"""HSTU ranker: score candidates given a history, reusing cached keys and values of its prefix.

A history event is two positions, its item and then its action, at one timestamp. A layer makes
U, V, Q, K = silu(norm(x) W), attends with silu(q.k / sqrt(qk) + bias) / positions_max (no softmax, so
a key's weight does not depend on the other keys), and returns x + (norm(attended) * U) W_out.
History positions attend causally. A candidate stands at the position after the history, at the time
of the newest event, and attends to the whole history and to itself, never to another candidate.

Layers are those of the HSTU paper (arXiv 2402.17152, section 3): pointwise projection, spatial aggregation
with a relative attention bias and without softmax, pointwise transformation gated by U.

The normaliser is a constant of the shape and the biases depend on differences only, so keys and
values of a prefix do not change when the history grows: they are the KV cache.

Rows, keys, values, projections and attention are of the ranker's `dtype`; the residual stream, the norms
and the head are float32, so that with bfloat16 a rounding is not carried from layer to layer.
"""

import math

import torch
from torch.nn import functional

from agents.profiles import ModelShape
from agents.runtime.model.bias import PositionTiles, log2_buckets
from agents.runtime.model.weights import POSITIONS_PER_TOKEN, Weights, kv_floats_per_token, weights_for

CHUNK_TOKENS = 32  # queries at a time: half the causal square is skipped and the score tile stays in a core's L2
_NORM_EPSILON = 1e-6
_CPU = torch.device("cpu")


class HstuRanker:
    """One model on one thread: the score buffers are reused between calls, so calls must not overlap.

    `device` holds weights and buffers and all tensors given to `forward`. A larger `chunk_tokens`
    means fewer and larger products, and a score buffer that grows with it.
    """

    def __init__(
        self,
        shape: ModelShape,
        weights: Weights,
        device: torch.device = _CPU,
        dtype: torch.dtype = torch.float32,
        chunk_tokens: int = CHUNK_TOKENS,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self._chunk_tokens = chunk_tokens
        self._weights = weights_for(weights, device, dtype)
        self._key_floats = shape.heads * shape.qk_dim
        self._value_floats = shape.heads * shape.v_dim
        self._scale = 1.0 / math.sqrt(shape.qk_dim)
        self._normaliser = 1.0 / (POSITIONS_PER_TOKEN * shape.tokens_max)
        self._tiles = PositionTiles(self._weights.position_bias, shape, chunk_tokens)
        runs = shape.heads * POSITIONS_PER_TOKEN
        self._keys = self._buffer(runs, shape.tokens_max, shape.qk_dim)
        self._values = self._buffer(runs, shape.tokens_max, shape.v_dim)
        self._scores = self._buffer(runs * POSITIONS_PER_TOKEN * chunk_tokens * shape.tokens_max)

    @property
    def token_floats(self) -> int:
        """Floats of KV per history event."""
        return kv_floats_per_token(self.shape)

    def _buffer(self, *sizes: int) -> torch.Tensor:
        return torch.empty(sizes, device=self.device, dtype=self.dtype)

    @torch.inference_mode()
    def forward(
        self,
        new_rows: torch.Tensor,
        new_actions: torch.Tensor,
        all_ts: torch.Tensor,
        cached_kv: torch.Tensor,
        candidate_rows: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score k candidates after n = c + m events, of which the first c are in `cached_kv`.

        `new_rows` [m, dim], `new_actions` int64 [m], `all_ts` int64 seconds [n], `cached_kv`
        [c, token_floats], `candidate_rows` [k, dim]; returns scores [k] and the new events' KV
        [m, token_floats]. `ValueError` when the parts do not fit together.
        """
        self._check(new_rows, new_actions, all_ts, cached_kv, candidate_rows)
        tokens, new = all_ts.shape[0], new_rows.shape[0]
        hidden = torch.cat((new_rows, self._weights.action_embedding.index_select(0, new_actions), candidate_rows)).float()
        new_kv = self._buffer(new, self.shape.layers, POSITIONS_PER_TOKEN, self._key_floats + self._value_floats)
        cached = cached_kv.view(-1, *new_kv.shape[1:])
        chunk_buckets = self._chunk_buckets(all_ts, new) if self.shape.layers > 1 else []
        candidate_buckets = log2_buckets(all_ts[-1] - all_ts, self.shape.time_buckets)
        for layer in range(self.shape.layers):
            last = layer == self.shape.layers - 1
            u, v, q, k = self._project(layer, hidden)
            self._pack(cached[:, layer], new_kv[:, layer], k, v, tokens)
            attended = self._attend_candidates(layer, q[2 * new :], k[2 * new :], v[2 * new :], candidate_buckets)
            if last:  # nobody reads the history's own outputs any more
                u, hidden = u[2 * new :], hidden[2 * new :]
            else:
                attended = torch.cat((self._attend_history(layer, q[: 2 * new], chunk_buckets, tokens), attended))
            hidden = hidden + torch.mm(self._normed(attended).mul_(u), self._weights.output[layer])
        normed = functional.layer_norm(hidden, (self.shape.dim,), eps=_NORM_EPSILON)
        scores = torch.addmm(self._weights.head_bias, normed, self._weights.head)
        return scores.view(-1), new_kv.view(new, self.token_floats)

    def _check(
        self, new_rows: torch.Tensor, new_actions: torch.Tensor, all_ts: torch.Tensor, cached_kv: torch.Tensor, candidate_rows: torch.Tensor
    ) -> None:
        tokens = all_ts.shape[0]
        if not 0 < tokens <= self.shape.tokens_max:
            raise ValueError(f"history of {tokens} events, allowed are 1 to {self.shape.tokens_max}")
        cached, new, actions = cached_kv.shape[0], new_rows.shape[0], new_actions.shape[0]
        if cached + new != tokens or actions != new:
            raise ValueError(f"{cached} cached and {new} new events with {actions} actions make no history of {tokens}")
        if candidate_rows.shape[0] == 0:
            raise ValueError("no candidates")

    def _normed(self, values: torch.Tensor) -> torch.Tensor:
        """Normalised in float32, given on in the ranker's type."""
        return functional.layer_norm(values.float(), values.shape[1:], eps=_NORM_EPSILON).to(self.dtype)

    def _project(self, layer: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        uvqk = functional.silu(torch.mm(self._normed(hidden), self._weights.uvqk[layer]), inplace=True)
        values, keys = self._value_floats, self._key_floats
        queries = 2 * values
        return uvqk[:, :values], uvqk[:, values:queries], uvqk[:, queries : queries + keys], uvqk[:, queries + keys :]

    def _pack(self, cached: torch.Tensor, new_kv: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tokens: int) -> None:
        """Write the new events' part of the cache, and lay all keys and values out by head and kind for the products."""
        held, new = cached.shape[0], new_kv.shape[0]
        for kind in range(POSITIONS_PER_TOKEN):
            new_kv[:, kind, : self._key_floats] = k[kind * new : (kind + 1) * new]
            new_kv[:, kind, self._key_floats :] = v[kind * new : (kind + 1) * new]
        for part, start, stop in ((cached, 0, held), (new_kv, held, tokens)):
            self._lay_out(self._keys[:, start:stop], part[:, :, : self._key_floats])
            self._lay_out(self._values[:, start:stop], part[:, :, self._key_floats :])

    def _lay_out(self, runs: torch.Tensor, part: torch.Tensor) -> None:
        """`[tokens, 2, heads * floats]` into `[heads * 2, tokens, floats]`."""
        tokens, floats = runs.shape[1:]
        by_head = part.view(tokens, POSITIONS_PER_TOKEN, self.shape.heads, floats).permute(2, 1, 0, 3)
        runs.view(self.shape.heads, POSITIONS_PER_TOKEN, tokens, floats).copy_(by_head)

    def _queries_by_run(self, q: torch.Tensor) -> torch.Tensor:
        """`[queries, heads * qk]` to `[heads * 2, queries, qk]`: each query once per kind of key."""
        by_head = q.view(q.shape[0], self.shape.heads, self.shape.qk_dim).transpose(0, 1)
        return by_head.unsqueeze(1).expand(-1, POSITIONS_PER_TOKEN, -1, -1).flatten(0, 1)

    def _weigh(self, biased: torch.Tensor, q: torch.Tensor, columns: int) -> torch.Tensor:
        """Add q.k to `biased` [runs, queries, columns] in place and return the attended values [queries, heads * v]."""
        biased.baddbmm_(self._queries_by_run(q), self._keys[:, :columns].transpose(1, 2), alpha=self._scale)
        functional.silu(biased, inplace=True)
        by_run = torch.bmm(biased, self._values[:, :columns])
        by_head = by_run.view(self.shape.heads, POSITIONS_PER_TOKEN, q.shape[0], self.shape.v_dim).sum(1)
        return by_head.transpose(0, 1).reshape(q.shape[0], self._value_floats)

    def _chunk_buckets(self, all_ts: torch.Tensor, new: int) -> list[torch.Tensor]:
        """Time buckets of each chunk of new events against everything up to its end, once for all layers."""
        tokens = all_ts.shape[0]
        starts = range(tokens - new, tokens, self._chunk_tokens)
        return [self._buckets(all_ts, start, min(start + self._chunk_tokens, tokens)) for start in starts]

    def _buckets(self, all_ts: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        return log2_buckets(all_ts[start:stop, None] - all_ts[None, :stop], self.shape.time_buckets)

    def _attend_history(self, layer: int, q: torch.Tensor, chunk_buckets: list[torch.Tensor], tokens: int) -> torch.Tensor:
        """Causal attention of the new events, item rows before action rows as in `q`."""
        new = q.shape[0] // POSITIONS_PER_TOKEN
        attended = self._buffer(POSITIONS_PER_TOKEN, new, self._value_floats)
        by_kind = q.view(POSITIONS_PER_TOKEN, new, self._key_floats)
        first = tokens - new
        for buckets in chunk_buckets:
            rows, columns = buckets.shape
            start = columns - rows - first
            time = self._weights.time_bias[layer].index_select(0, buckets.view(-1)).view(rows, columns)
            runs = self._scores[: self._keys.shape[0] * POSITIONS_PER_TOKEN * rows * columns]
            position = self._tiles.history(layer, rows, columns).expand(self.shape.heads, -1, -1, -1, -1)
            torch.add(position, time, out=runs.view(position.shape))
            chunk = by_kind[:, start : start + rows].flatten(0, 1)
            weighed = self._weigh(runs.view(-1, POSITIONS_PER_TOKEN * rows, columns), chunk, columns)
            torch.mul(weighed.view(POSITIONS_PER_TOKEN, rows, -1), self._normaliser, out=attended[:, start : start + rows])
        return attended.flatten(0, 1)

    def _attend_candidates(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, buckets: torch.Tensor) -> torch.Tensor:
        """Attention of every candidate to the whole history and to itself."""
        columns = buckets.shape[0]
        time = self._weights.time_bias[layer]
        bias = (self._tiles.candidate(layer, columns) + time.index_select(0, buckets)).repeat(self.shape.heads, 1).unsqueeze(1)
        attended = self._attend_self(layer, q, k, v)
        step = POSITIONS_PER_TOKEN * self._chunk_tokens
        for start in range(0, q.shape[0], step):
            chunk = q[start : start + step]
            runs = self._scores[: bias.shape[0] * chunk.shape[0] * columns].view(-1, chunk.shape[0], columns)
            attended[start : start + step] += self._weigh(runs.copy_(bias), chunk, columns)
        return attended.mul_(self._normaliser)

    def _attend_self(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        by_head = (q.shape[0], self.shape.heads, -1)
        scores = (q * k).view(by_head).sum(2, keepdim=True).mul_(self._scale)
        scores += self._weights.position_bias[layer, 0] + self._weights.time_bias[layer, 0]
        return (functional.silu(scores) * v.view(by_head)).flatten(1)
