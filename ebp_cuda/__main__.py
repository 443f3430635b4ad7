"""`python -m ebp_cuda` is `ebp-cuda`."""

from .cli import main

if __name__ == "__main__":
    main()
