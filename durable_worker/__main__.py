"""`python -m durable_worker` is `durable-worker`."""

from durable_worker.cli.app import main

if __name__ == "__main__":
    main()
