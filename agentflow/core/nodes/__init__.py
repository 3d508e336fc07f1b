"""The machines that agentflow itself puts on the network: masters, workers and clients."""
