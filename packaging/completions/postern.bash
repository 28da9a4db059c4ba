# bash completion of postern(1). What there is to choose from, postern-complete says.
_postern() {
    local cur words cword line
    _get_comp_words_by_ref -n : cur words cword || return
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) _filedir ;;
            :folders) _filedir -d ;;
            *) COMPREPLY+=("$(printf '%q' "${line%%$'\t'*}")") ;;
        esac
    done < <("${POSTERN_COMPLETE:-/usr/libexec/postern/postern-complete}" "${words[@]:1:cword-1}" "${cur//\\/}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/:=] ]]; then
        compopt -o nospace
    fi
    # Bash takes the colon of VM:/PATH for the end of a word.
    __ltrim_colon_completions "$cur"
}
complete -F _postern postern
