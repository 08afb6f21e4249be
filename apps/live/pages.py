"""Pages that are not the API: the console's shell, the API's documentation, health."""

from typing import Any

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt, ensure_csrf_cookie
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator

from apps.lib.problems import Missing, as_http

NOT_BUILT = (
    "<!doctype html><title>HELM</title><p>The console is not built: run <code>make up</code>. "
    "The API is described at <a href='/api/v1/docs/'>/api/v1/docs/</a>.</p>"
)


@require_safe
@ensure_csrf_cookie
def console(request: HttpRequest) -> HttpResponse:
    """The console's shell for every path that is not a file: its own router reads the address."""
    index = settings.FRONTEND_DIST / "index.html"
    if request.path.rsplit("/", 1)[-1].count(".") and request.path != "/index.html" and not request.path.startswith("/nodes/"):
        return as_http(request, Missing("not_found", "There is no such file."))
    if not index.is_file():
        return HttpResponse(NOT_BUILT, status=200)
    response = HttpResponse(index.read_bytes(), content_type="text/html; charset=utf-8")
    response["Cache-Control"] = "no-cache"
    return response


@csrf_exempt
def unknown_api_path(request: HttpRequest) -> JsonResponse:
    """A 404 in the API's own words, never the console's shell."""
    return as_http(request, Missing("not_found", "Nothing lives at this address; see /api/v1/schema/."))


@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """Up, with its database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok"})


@require_safe
def api_docs(request: HttpRequest) -> HttpResponse:
    """The schema as one page that needs no script and no network."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    return render(request, "live/api_docs.html", {"info": schema["info"], "operations": _operations(schema), "schemas": _schemas(schema)})


def _operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "method": method.upper(),
            "path": path,
            "id": operation["operationId"],
            "text": operation.get("description", ""),
            "parameters": operation.get("parameters", []),
            "body": _name(operation.get("requestBody", {})),
            "answers": [{"status": status, "name": _name(answer)} for status, answer in operation["responses"].items()],
        }
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]


def _schemas(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "text": part.get("description", ""),
            "properties": [{"name": key, "type": _type(value)} for key, value in part.get("properties", {}).items()],
        }
        for name, part in schema["components"]["schemas"].items()
    ]


def _name(part: dict[str, Any]) -> str:
    for content in part.get("content", {}).values():
        return _type(content.get("schema", {}))
    return ""


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return str(value["$ref"]).rsplit("/", 1)[-1]
    for word in ("oneOf", "allOf", "anyOf"):
        if word in value:
            return " | ".join(_type(item) for item in value[word])
    kind = value.get("type", "object")
    kind = " | ".join(kind) if isinstance(kind, list) else kind
    return f"{kind} of {_type(value['items'])}" if "items" in value else str(kind)
