# Completion of vmnetctl(1) for bash. What there is to complete is asked from vmnetctl: commands, options and arguments
# from its --help, names from the broker.

# Commands, one a line. $1: the program.
_vmnetctl_commands() {
    "$1" --help 2>/dev/null | sed -n '/^commands:$/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p'
}

# "--option METAVAR" a line, of the program or, with $2, of that command, and the same with its letter; "=" before the
# metavariable when only --option=VALUE takes one.
_vmnetctl_options() {
    "$@" --help 2>/dev/null | sed -nE '
        s/^  (-.), (--[a-z-]+) ([A-Z]+) .*/\1 \3\n\2 \3/p; t
        s/^  (-.,|   ) --([a-z-]+)\[=([A-Z]+)\] .*/--\2 =\3/p; t
        s/^  (-.,|   ) --([a-z-]+) ([A-Z]+) .*/--\2 \3/p; t
        s/^  (-.,|   ) --([a-z-]+) .*/--\2/p'
}

# What an option takes, of lines as above; nothing: it takes none, or does not exist. $1: the option.
_vmnetctl_metavariable() {
    local option kind
    while read -r option kind; do
        [ "$option" = "$1" ] && printf '%s\n' "$kind" && return
    done
}

# What stands for positional arguments in a command's usage, one a line.
_vmnetctl_arguments() {
    "$1" "$2" --help 2>/dev/null | sed -nE '
        1 { s/^usage: vmnetctl [a-z-]+//; s/ \| .*//; s/\[options\]//; s/\[--\]//; s/ +/\n/gp; }' | sed '/^$/d'
}

# Values of a member of the objects in a list: "$@" is the command, $member the member's name.
_vmnetctl_members() {
    "$@" --json 2>/dev/null | sed -nE 's/^ *"'"$member"'": "?([A-Za-z0-9_.-]+)"?,?$/\1/p' | sort -u
}

# Words for a metavariable. $1: it; the rest: the program with the options that lead to its broker.
_vmnetctl_values() {
    local kind=$1 member
    shift
    case $kind in
    *NETWORK* | NAME) member=name _vmnetctl_members "$@" networks ;;&
    *INTERFACE*) member=interfaceName _vmnetctl_members "$@" interfaces ;;
    VM*) member=hostname _vmnetctl_members "$@" interfaces ;;
    NUMBER) member=id _vmnetctl_members "$@" forward --list ;;
    FORMAT) printf '%s\n' table prometheus ;;
    esac
}

_vmnetctl() {
    local program=$1 cur=${COMP_WORDS[COMP_CWORD]} command= value= count=0 i word options
    local -a ask=("$program")

    COMPREPLY=()
    # bash makes "--name=value" three words.
    [ "$cur" = "=" ] && cur=
    options=$(_vmnetctl_options "$program")
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [ "$word" = "=" ]; then
            continue
        elif [ "$word" = "--" ] && [ -n "$command" ]; then
            value=
            continue
        elif [ -n "$value" ]; then
            [ "$value" = PATH ] && ask+=(--socket "$word")
            value=
        elif [[ $word == -* ]]; then
            value=$(_vmnetctl_metavariable "$word" <<<"$options")
            # What may be given only behind "=" is not the next word.
            [[ $value == "="* ]] && [ "${COMP_WORDS[i + 1]}" != "=" ] && value=
            value=${value#=}
        elif [ -z "$command" ]; then
            command=$word
            options=$(_vmnetctl_options "$program" "$command")
        else
            ((count++))
        fi
    done

    if [ "$value" = PATH ] || [ "$value" = FILE ]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    elif [ -n "$value" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_vmnetctl_values "$value" "${ask[@]}")" -- "$cur")
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(sed -nE 's/^(--[^ ]+).*/\1/p' <<<"$options")" -- "$cur")
    elif [ -z "$command" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_vmnetctl_commands "$program")" -- "$cur")
    else
        word=$(_vmnetctl_arguments "$program" "$command" | sed -n "$((count + 1))p")
        case $word in
        COMMAND*) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$(_vmnetctl_values "${word#[}" "${ask[@]}")" -- "$cur") ;;
        esac
    fi
}

complete -F _vmnetctl vmnetctl
