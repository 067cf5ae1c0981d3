"""``python -m lasersell_sync`` is the command ``lasersell-sync``."""

from lasersell_sync.cli import main

if __name__ == "__main__":
    main()
