"""ortmesh: AI models as a service, on your own machines."""

__version__ = "0.1.0"
