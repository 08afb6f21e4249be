"""Methods that learn nothing: one file each, all behind `controller.interface`."""
