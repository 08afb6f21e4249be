"""Who owns each page of the pool, and what must move to reach another split."""
