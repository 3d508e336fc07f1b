"""The rooms of `Simulation`.

- `world`, `journal`, `base`: what has a state in virtual time, what was done to it, and how time moves.
- `past`, `copies`, `recipe`, `compare`, `moment`, `store`: going back, and the proof that one can.
- `wires`: one message, one timer at a time. `script`: what was done by hand, as Python.
- `breaking`, `workloads`: faults and work. `judging`: what the judges say, and how to see it again.
- `diagram`, `sweep`, `scenarios`: pictures, many seeds, and the stories that courses tell.
"""
