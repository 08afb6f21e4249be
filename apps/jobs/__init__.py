"""Long work that outlives a request: its row, its states, its sign of life. Whoever has such work brings a model of its own."""
