"""What may follow on a command line: verbs, options, models, runs, configuration groups and their values. No torch."""

import argparse
from pathlib import Path

from zoo import catalogue
from zoo.parser import verb_names, verb_parser


def candidates(words: list[str]) -> list[str]:
    """Completions of the last of `words` (which may be empty); the first word is a verb. Empty means file names."""
    *before, current = words or [""]
    if not before:
        return _starting(current, [*verb_names(), "--help", "--version"])
    if before[0] not in verb_names():
        return []
    parser = verb_parser(before[0])
    if current.startswith("-"):
        return _starting(current, [option for option in parser._option_string_actions if option.startswith("--")])
    action = _expecting(parser, before[1:])
    if action is None:
        return []
    if action.choices:
        return _starting(current, [str(choice) for choice in action.choices])
    return _by_kind(str(action.metavar or "").upper(), current)


def _expecting(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Action | None:
    """The option or positional that the next word belongs to."""
    options = parser._option_string_actions
    if words and words[-1] in options and options[words[-1]].nargs != 0:
        return options[words[-1]]
    given = 0
    for before, word in zip(["", *words], words):
        value_of_option = before in options and options[before].nargs != 0
        given += not word.startswith("-") and not value_of_option
    positionals = parser._get_positional_actions()
    many = [action for action in positionals if action.nargs in ("*", "+")]
    return positionals[given] if given < len(positionals) else (many[-1] if many else None)


def _by_kind(kind: str, current: str) -> list[str]:
    found: list[str] = []
    if "NAME" in kind:
        found += catalogue.names()
    if "RUN" in kind:
        found += _runs()
    if "KEY=VALUE" in kind:
        group, given, _ = current.partition("=")
        known = catalogue.groups() | {"resume": _runs()}
        found += [f"{group}={value}" for value in known.get(group, [])] if given else [f"{name}=" for name in known]
    return _starting(current, found)


def _runs(output_dir: str = "outputs") -> list[str]:
    """`latest` and the run folders, the newest first."""
    runs = sorted((file.parent for file in Path(output_dir).glob("*/*/*/config.yaml")), key=lambda run: run.name)
    found = [str(run) for run in reversed(runs) if not run.is_symlink()]
    return ["latest", *found] if found else []


def _starting(current: str, words: list[str]) -> list[str]:
    return [word for word in words if word.startswith(current)]


BASH = """\
# zoo completion for bash: add to ~/.bashrc  eval "$(zoo completion bash)"
_zoo() {
    local line="${COMP_LINE:0:COMP_POINT}" word reply=()
    word="${line##*[[:space:]]}"
    while IFS= read -r found; do
        # bash splits words at "=", so only what follows it is replaced
        [[ "$word" == *=* ]] && found="${found#*=}"
        reply+=("$found")
    done < <(zoo completion --line "$line" 2>/dev/null)
    COMPREPLY=("${reply[@]}")
    [[ ${#reply[@]} -eq 1 && "${reply[0]}" == *= ]] && compopt -o nospace
}
complete -o default -F _zoo zoo
"""

ZSH = """\
#compdef zoo
# zoo completion for zsh: add to ~/.zshrc after compinit  eval "$(zoo completion zsh)"
_zoo() {
    local -a found
    found=("${(@f)$(zoo completion --line "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -z "${found[1]}" ]]; then
        _files
    elif [[ ${#found} -eq 1 && "${found[1]}" == *= ]]; then
        compadd -S '' -- "${found[@]}"
    else
        compadd -- "${found[@]}"
    fi
}
compdef _zoo zoo
"""

FISH = """\
# zoo completion for fish: write to ~/.config/fish/completions/zoo.fish
complete -c zoo -a '(zoo completion --line (commandline -cp | string collect) 2>/dev/null)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
