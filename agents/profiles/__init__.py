"""Hardware, model and workload profiles: data with a source for each constant, not code."""

from agents.profiles.profile import (
    Calibration,
    CostConstants,
    DeviceName,
    FittedTerm,
    ModelShape,
    Profile,
    available_profiles,
    load_profile,
    profile_reference,
)

__all__ = [
    "Calibration",
    "CostConstants",
    "DeviceName",
    "FittedTerm",
    "ModelShape",
    "Profile",
    "available_profiles",
    "load_profile",
    "profile_reference",
]
