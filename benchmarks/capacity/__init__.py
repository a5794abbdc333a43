"""From measured lines to the machines that a load needs: nodes, memory, disk, cost, and their p99."""
