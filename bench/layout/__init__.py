"""How layouts of executors and threads compare on this machine, and what is chosen."""
