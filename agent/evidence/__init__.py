"""What makes a ledger evidence (agent/ledger.py): signatures, exports, and their audit."""
