"""Mathematics of the brain: streaming estimators, curves, cost model, kernels."""
