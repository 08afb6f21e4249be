"""Training: the only room of the centre that may import torch and gymnasium."""
