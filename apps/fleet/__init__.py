"""Clusters, nodes, enrolment, desired and observed state."""
