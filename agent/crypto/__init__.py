"""Keys and signatures; empty until the ledger's checkpoints and the key room arrive."""
