"""How the network is laid out over devices, who talks to whom, and the proof of it."""
