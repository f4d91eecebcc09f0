"""`completion`: a script with which the shell completes commands and options."""

import click

from toolkit.cli.group import Command

PYTHON_IN_BASH = """
_python_cli_py() {
    [[ "${COMP_WORDS[1]}" == cli.py || "${COMP_WORDS[1]}" == */cli.py ]] || return 0
    local IFS=$'\\n' line
    for line in $(COMP_WORDS="${COMP_WORDS[*]:1}" COMP_CWORD=$((COMP_CWORD - 1)) \\
        _CLI_PY_COMPLETE=bash_complete "$1" "${COMP_WORDS[1]}"); do
        [[ $line == plain,* ]] && COMPREPLY+=("${line#plain,}")
    done
}
complete -o default -F _python_cli_py python python3
"""
"""Completes `python cli.py …` as well; behind any other script it leaves file names to bash."""


@click.command(cls=Command, epilog='Example: eval "$(python cli.py completion bash)"')
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script with which bash, zsh or fish complete commands and options with Tab.

    It completes `clip-toolkit`, and in bash `python cli.py` as well. To keep it, put the example's line into ~/.bashrc;
    in zsh the same with zsh into ~/.zshrc; in fish write it to ~/.config/fish/completions/clip-toolkit.fish.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "clip-toolkit", "_CLIP_TOOLKIT_COMPLETE").source())
    if shell == "bash":
        click.echo(PYTHON_IN_BASH)
