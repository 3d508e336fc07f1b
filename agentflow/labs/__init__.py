"""Work to try a cluster on: real jobs on data that every machine has."""
