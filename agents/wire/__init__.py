"""Messages, ids and error codes: the only shapes shared by both ends of a wire."""
