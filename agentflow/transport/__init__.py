"""What carries messages between nodes: `memory` models the wires of a cluster held in one process."""
