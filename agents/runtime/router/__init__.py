"""The router's body: sockets, time and processes around `agents.router`."""
