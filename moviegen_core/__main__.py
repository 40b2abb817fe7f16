"""`python -m moviegen_core` equals `moviegen`."""

from moviegen_core.cli import main

if __name__ == "__main__":
    main()
