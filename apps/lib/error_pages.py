"""Django's own error answers (outside of the REST framework), as problems too."""

from django.http import HttpRequest, JsonResponse

from apps.lib.problems import Missing, Problem, Refused, as_http


def error_400(request: HttpRequest, exception: Exception) -> JsonResponse:
    """A request Django itself refuses, such as an unknown host."""
    return as_http(request, Problem("bad_request", "This request cannot be answered: check the address it was sent to."))


def error_403(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Refused before any view."""
    return as_http(request, Refused("forbidden", str(exception) or "Not allowed."))


def error_404(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Nothing there."""
    return as_http(request, Missing("not_found", "Nothing lives at this address."))


def error_500(request: HttpRequest) -> JsonResponse:
    """Something failed outside of the API's views."""
    problem = Problem("internal", "Something failed on our side; the request id leads to the log.")
    problem.status = 500
    return as_http(request, problem)
