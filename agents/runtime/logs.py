"""How the daemons log."""

import sys

import structlog


def log_to_stderr() -> None:
    """One JSON object a line; the supervisor gives each process its own file."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
