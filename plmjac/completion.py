"""Completion of commands, groups and keys in a shell: `plmjac completion bash` or `zsh` prints the script for it.

    plmjac completion bash > ~/.local/share/bash-completion/completions/plmjac
    plmjac completion zsh > ~/.zfunc/_plmjac        # a folder of $fpath

The words are those of the installed version; after another one is installed, print it again.
"""

import shlex
import sys

from plmjac.__main__ import COMMANDS
from plmjac.conf_tree import ADDED, words_of

BASH = """\
_plmjac() {
  local line=${COMP_LINE:0:COMP_POINT} words word
  local current=${line##* }
  if [[ ! $line =~ ^[^\\ ]+\\ +[^\\ ]+\\  ]]; then words="@commands@"
  else case ${COMP_WORDS[1]} in
@cases@
  esac; fi
  COMPREPLY=()
  for word in $words; do
    [[ $word == "$current"* ]] || continue
    [[ $word == *= ]] || word="$word "
    [[ $current != *=* ]] || word=${word#"${current%=*}="}  # bash has words end at =
    COMPREPLY+=("$word")
  done
}
complete -o nospace -o default -F _plmjac plmjac
"""

ZSH = """\
#compdef plmjac
_plmjac() {
  local -a found
  if (( CURRENT == 2 )); then compadd -- @commands@; return; fi
  case $words[2] in
@cases@
  esac
  compadd -- ${found:#*=}
  compadd -S '' -- ${(M)found:#*=}
  compset -P '*=' && _files
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _plmjac "$@"; else compdef _plmjac plmjac; fi
"""


def script(shell: str, commands: list[str]) -> str:
    """The completion script of a shell, "bash" or "zsh"."""
    text, begin, end = (BASH, 'words="', '"') if shell == "bash" else (ZSH, "found=(", ")")
    cases = [f"    {name}) {begin}{' '.join(words_of(name))}{end} ;;" for name in ADDED]
    cases += [f"    completion) {begin}bash zsh{end} ;;"]
    return text.replace("@commands@", " ".join(commands)).replace("@cases@", "\n".join(cases))


def main() -> None:
    """Print the script of the shell that is named; exit code 2 for another word."""
    if sys.argv[1:] not in (["bash"], ["zsh"]):
        print(f"usage: plmjac completion bash|zsh, not {shlex.join(sys.argv[1:]) or 'nothing'}", file=sys.stderr)
        sys.exit(2)
    print(script(sys.argv[1], list(COMMANDS)), end="")


if __name__ == "__main__":
    main()
