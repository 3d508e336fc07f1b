"""Pure machines and the values they speak in: no clock, thread, socket, file or chance of their own.

`machine` has the two doors that every machine has; `raft` orders commands, `control` gives them meaning,
`nodes` puts both on the network; `scheduling` and `agents` are usable alone. `record` is a line of the trace.
"""
