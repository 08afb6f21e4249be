"""A start that cannot be: one line for the person who asked for it."""


class Refusal(Exception):
    """The text is the whole message; the command that meets it ends with exit code 2."""
