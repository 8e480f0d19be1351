"""The people of a terminal: their accounts, and who is at the other end of the local socket."""
