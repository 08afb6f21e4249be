"""Versions of a resource: ETag out, If-Match in.

An entity tag stands for what people write (the spec). Status changes every second and has its
own time stamp; if it changed the tag, nobody could ever write.
"""

from apps.lib.problems import Stale, VersionNeeded


def etag(resource_version: int) -> str:
    """Strong entity tag of a version."""
    return f'"{resource_version}"'


def require_match(if_match: str | None, resource_version: int) -> None:
    """Refuse a write whose If-Match is absent (428) or names another version (412)."""
    if if_match is None or not if_match.strip():
        raise VersionNeeded("version_needed", "Send If-Match with the ETag you were shown.", current_etag=etag(resource_version))
    check_match(if_match, resource_version)


def check_match(if_match: str, resource_version: int) -> None:
    """Refuse a stale If-Match. Weak tags never match: they cannot promise equal bytes."""
    offered = {part.strip() for part in if_match.split(",")}
    if "*" not in offered and etag(resource_version) not in offered:
        raise Stale(
            "stale_version", "This has changed since you looked at it: read it again and decide anew.", current_etag=etag(resource_version)
        )
