"""One node's brain: what to reuse, book, evict, move and refill. No clock, no I/O."""
