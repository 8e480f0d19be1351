"""Keys. keyblock, kcv and secret hold no cipher and serve everywhere; the others belong to the key room."""
