"""Many devices and many processes as one run: the mesh, who talks to whom, how a run ends."""
