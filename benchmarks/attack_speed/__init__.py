"""What `attacks.py` measures, one file each, and what the measurements share: task, models, ours, peers, turns."""
