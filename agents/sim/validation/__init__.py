"""Whether the simulator can be believed on this machine: a live run against what it says of the same requests."""
