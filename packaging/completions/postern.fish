# fish completion of postern(1). What there is to choose from, postern-complete says.
function __postern_candidates
    set -l helper /usr/libexec/postern/postern-complete
    set -q POSTERN_COMPLETE; and set helper $POSTERN_COMPLETE
    set -l words (commandline -opc)
    set -e words[1]
    set -l current (commandline -ct)
    for line in ($helper $words "$current" 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path "$current"
            case ':folders'
                __fish_complete_directories "$current"
            case '*'
                echo $line
        end
    end
end
complete -c postern -f -a '(__postern_candidates)'
