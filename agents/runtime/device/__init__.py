"""Where bytes live and move: one interface, a CPU that emulates HBM, and CUDA."""
