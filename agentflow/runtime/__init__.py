"""What runs machines: one host that performs their effects, two drivers that move its time.

`host` performs effects and makes faults, `virtual` jumps from event to event, `realtime` sleeps until the
next one on an asyncio loop in a thread, `trace` records everything once.
"""
