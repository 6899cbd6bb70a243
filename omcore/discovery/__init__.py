"""How members find each other's addresses: the LAN, a list, an openmosix.map. Hints only, never an admission."""
