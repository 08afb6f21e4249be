"""The load generator: open-loop arrivals, a rate the machine can hold, answers that are checked."""
