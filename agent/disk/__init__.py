"""The store's parts (agent/store.py): files that outlast power cuts, full disks and damage."""
