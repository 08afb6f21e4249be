"""The virtual-time body: the same brain under an event heap and a cost model."""
