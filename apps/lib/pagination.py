"""Pages: cursors for what grows at one end, numbers for small sets."""

from rest_framework.pagination import CursorPagination, PageNumberPagination


class NewestFirst(CursorPagination):
    """Event-like tables, newest first. `page_size` is capped so that one call cannot read a year."""

    ordering = "-id"
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500


class SmallSet(PageNumberPagination):
    """Nodes, tokens, jobs: a whole fleet of a thousand nodes fits one page."""

    page_size = 200
    page_size_query_param = "page_size"
    max_page_size = 2000
