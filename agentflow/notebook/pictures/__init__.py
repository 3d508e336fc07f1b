"""Pictures as pure functions: from a status of `agentflow.cluster.status` to the text of an SVG.

Law: nothing here reads a cluster, a clock or a file. Equal statuses give equal pictures.
"""
