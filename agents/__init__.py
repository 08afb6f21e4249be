"""HELM's brain and its two bodies. No Django below this package."""
