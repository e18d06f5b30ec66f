# Save and find links of a store from a terminal. For any POSIX shell, with curl:
#
#     . clients/links.sh
#     export API=https://.../prod/link      and APIDB_KEY=..., if it wants a key
#
#     links save URL [-t TITLE] [-n NOTES] [TAG ...]
#     links find [-t TAG] ... [WORD ...]
#
# Each link is a line of JSON, as the API writes it. What the API refuses is said on stderr, with exit code 1.

links() (
    # $1 as a JSON string; control characters, which the API takes in few places, are blanks.
    quoted() {
        printf '"%s"' "$(printf '%s' "$1" | LC_ALL=C tr '\001-\037' '[ *]' | LC_ALL=C sed 's/[\\"]/\\&/g')"
    }

    # What curl gets with these arguments: $status, the header Link in $next, and $body. The key is in no argument,
    # which others on this machine could see.
    ask() {
        answer=$(printf 'header = "x-api-key: %s"\n' "$APIDB_KEY" |
            curl -sS -D - -K - -H 'Content-Type: application/json' "$@") || return
        status=$(printf '%s\n' "$answer" | sed -n '1s/^[^ ]* \([0-9]*\).*/\1/p')
        next=$(printf '%s\n' "$answer" | tr -d '\r' | sed -n '/^$/q; s/^[Ll]ink: <[^>?]*?\([^>]*\)>.*/\1/p')
        body=$(printf '%s\n' "$answer" | tr -d '\r' | sed '1,/^$/d')
        if [ "$status" -ge 300 ]; then
            printf '%s\n' "$body" >&2
            return 1
        fi
    }

    save() {
        link=$1 title='' notes='' tags=''
        shift
        while [ $# -gt 0 ]; do
            case $1 in
            -[tn])
                [ $# -gt 1 ] || usage || return
                if [ "$1" = -t ]; then title=$2; else notes=$2; fi
                shift
                ;;
            *) tags="$tags${tags:+, }$(quoted "$1")" ;;
            esac
            shift
        done
        json="{\"link\": $(quoted "$link")"
        [ -z "$title" ] || json="$json, \"title\": $(quoted "$title")"
        [ -z "$notes" ] || json="$json, \"notes\": $(quoted "$notes")"
        [ -z "$tags" ] || json="$json, \"tags\": [$tags]"
        ask --data-binary "$json}" "$API" && printf '%s\n' "$body"
    }

    find() {
        words=''
        for each in "$@"; do # the loop keeps what it began with
            shift
            if [ "$each" = -t ] && [ -z "$tag" ]; then
                tag=next
            elif [ "$tag" = next ]; then
                tag=''
                set -- "$@" --data-urlencode "tag=$each"
            else
                words="$words${words:+ }$each"
            fi
        done
        [ -z "$words" ] || set -- "$@" --data-urlencode "q=$words"
        ask -G -d limit=100 "$@" "$API" || return
        while :; do
            # A line each, without the brackets of the array.
            printf '%s\n' "$body" | sed 's/^\[//; s/[],]$//; /^$/d'
            [ -n "$next" ] || return 0
            ask "$API?$next" || return
        done
    }

    usage() {
        echo 'links save URL [-t TITLE] [-n NOTES] [TAG ...], or: links find [-t TAG] ... [WORD ...]' >&2
        return 2
    }

    tag=''
    case $1 in
    save | find)
        if [ -z "$API" ]; then
            echo 'Which API? export API=https://.../prod/link' >&2
            return 2
        fi
        [ "$1$#" != save1 ] || usage || return
        "$@"
        ;;
    *) usage ;;
    esac
)
