"""Hardware, model and workload profiles: data with a source for each constant, not code."""

from agents.profiles.profile import CostConstants, ModelShape, Profile, available_profiles, load_profile

__all__ = ["CostConstants", "ModelShape", "Profile", "available_profiles", "load_profile"]
