"""Live views: what a cluster, a run and a simulation look like while they go on, and what one can do to them there.

From the bottom up: `modules` puts the front end's files together; `tail` reads the trace as it grows; `scene`
says what a view shows; `feed` reads one object for all its views and carries their commands; `widget` is the
one place that knows anywidget; `session` shows, and freezes what has ended into its still.
"""
