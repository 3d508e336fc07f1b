"""`python -m agentflow`: the same as the command `agentflow`."""

from agentflow.cli import main

if __name__ == "__main__":
    main()
