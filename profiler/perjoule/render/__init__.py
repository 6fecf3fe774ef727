"""Rendering: results in, text or HTML out. Scaling of units happens here and nowhere else."""
