"""This process's links: which node is connected here, and what waits to be stored."""

from typing import TYPE_CHECKING

from apps.telemetry.ingest import Inbox

if TYPE_CHECKING:
    from apps.live.link import AgentLink

GROUP = "helm.links"  # every process hears of every command and acts on those for its own nodes


class Hub:
    """Links by node id. Touched only from the event loop."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self._links: dict[int, AgentLink] = {}

    def join(self, node_id: int, link: "AgentLink") -> "AgentLink | None":
        """A node dialled in here; returns the link it had before."""
        before = self._links.get(node_id)
        self._links[node_id] = link
        return before

    def leave(self, node_id: int, link: "AgentLink") -> None:
        """A link is gone, unless a newer one has taken its place."""
        if self._links.get(node_id) is link:
            del self._links[node_id]

    def link_of(self, node_id: int) -> "AgentLink | None":
        """The link of a node, if it is connected here."""
        return self._links.get(node_id)

    def node_ids(self) -> list[int]:
        """Nodes connected here."""
        return list(self._links)


hub = Hub()
