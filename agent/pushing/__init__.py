"""What becomes of signed pushes (agent/pushes.py) at a terminal: configurations on probation, commands, trust."""
