"""Reading back what was logged: what the store has, and what still waits in the spools of this machine."""
