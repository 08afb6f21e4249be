"""The web process: Django over HTTP, Channels over WebSocket, the loops over the server's life.

Never imports torch: the simulator is Celery's business, and a test looks at `sys.modules`.
"""

import os
import warnings

# The console's files are small and served by middleware that reads them synchronously; saying so per file helps nobody.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "helmctl.settings")

from django.core.asgi import get_asgi_application  # noqa: E402

_http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from apps.live.lifespan import lifespan  # noqa: E402
from apps.live.routing import websocket_urlpatterns  # noqa: E402
from apps.live.sockets import refuse_unknown_path  # noqa: E402

application = ProtocolTypeRouter({"http": _http, "websocket": refuse_unknown_path(URLRouter(websocket_urlpatterns)), "lifespan": lifespan})
