"""The replicated state under the Raft log: commands in, placements and answers out."""
