"""`python cli.py …` is the installed program `clip-toolkit …`; all of it lies in `toolkit/cli/`."""

from toolkit.cli.main import main

if __name__ == "__main__":
    main("python cli.py", "_CLI_PY_COMPLETE")
