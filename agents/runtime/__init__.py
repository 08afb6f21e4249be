"""The real-time body: daemons, devices, the model, the load generator."""
