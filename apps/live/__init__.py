"""The agents' link and the operators' stream."""
