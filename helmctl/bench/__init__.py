"""Benches: what the product claims about its speed, measured and printed in one shape."""
