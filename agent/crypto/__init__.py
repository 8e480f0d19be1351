"""Keys. keyblock, kcv and secret hold no cipher and serve everywhere, as do signing (ed25519, strictjson) and
sealing (keepers, tpm), which hold no DES; the others belong to the key room."""
