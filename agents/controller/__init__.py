"""Who proposes a ratio and who limits the proposal."""
