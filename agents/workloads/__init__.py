"""Request streams: generators, traces, journals. The only part of the brain that reads files."""
