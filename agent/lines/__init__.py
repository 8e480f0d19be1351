"""What a link runs over (agent/link.py): addresses, ports, websockets, and who answers there."""
