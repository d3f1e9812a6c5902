"""The gateway: Envoy, configured, watched and supervised, and the directory of the mesh."""
