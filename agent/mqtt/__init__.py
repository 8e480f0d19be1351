"""The uplink's parts (agent/uplink.py): one broker connection, what it carries, and what comes back."""
