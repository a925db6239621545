"""`completion`: Tab in bash, zsh and fish for verbs, options, models, runs and the values of `model=`, `data=`, ..."""

import argparse

ABOUT = "Print the script that makes Tab complete in bash, zsh or fish."
EXAMPLES = """
eval "$(zoo completion bash)"
zoo completion zsh >> ~/.zshrc
zoo completion fish > ~/.config/fish/completions/zoo.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", nargs="?", choices=["bash", "zsh", "fish"])
    parser.add_argument("--line", metavar="TEXT", help="print what may complete this command line (the scripts ask so)")


def run(args: argparse.Namespace) -> None:
    from zoo.completion import SCRIPTS, candidates
    from zoo.errors import UserError

    if args.line is not None:
        words = args.line.split()
        for word in candidates([*words[1:], ""] if args.line.endswith(" ") else words[1:]):
            print(word)
        return
    if args.shell is None:
        raise UserError("name the shell: zoo completion bash, zsh or fish")
    print(SCRIPTS[args.shell], end="")
