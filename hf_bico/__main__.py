"""`python -m hf_bico` is `hf-bico`, as launchers of several processes start it."""

from hf_bico.cli.main import main

if __name__ == "__main__":
    main()
