"""Which node answers a request soonest: filters, scorers in milliseconds, picker."""
