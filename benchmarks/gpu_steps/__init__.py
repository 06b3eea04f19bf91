"""What `gpu.py` measures, one file for each step, and what steps share: job, report, wheels."""
