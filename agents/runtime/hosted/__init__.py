"""One pool with both caches inside a server of your own: you compute, HELM decides what stays on the device.

`HostedCaches` is all there is to know: `lease` rows and a prefix for a request, `keep` what should be reused.
"""

from agents.runtime.hosted.caches import HostedCaches, Lease
from agents.runtime.hosted.life import ControlPlane

__all__ = ["ControlPlane", "HostedCaches", "Lease"]
