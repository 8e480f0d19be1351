"""Key ceremonies in a live agent: what people ask, who conducts, and whether the EPP is as the ledger says."""
