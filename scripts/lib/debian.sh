# shellcheck shell=bash
# The Debian archive this machine installs from, and apt that touches nothing of the system. Sourced.

# archive SUITE...: where the apt sources say that one of these suites is. Comments do not count (images often keep another
# address in them), nor do foreign archives.
archive() {
    {
        # One-line form: "deb [options] URI SUITE COMPONENT..." becomes "URI SUITE..."
        find /etc/apt/sources.list /etc/apt/sources.list.d -maxdepth 1 -name '*.list' -exec cat {} + 2>/dev/null |
            sed -n 's/^[[:space:]]*deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}//p'
        # deb822 form: paragraphs of fields; a field may go on in indented lines, and may name several addresses and suites.
        find /etc/apt/sources.list.d -maxdepth 1 -name '*.sources' -exec awk '
            function flush() { if (enabled && types ~ /(^| )deb( |$)/) print_all(); types = uris = suites = field = ""; enabled = 1 }
            function print_all(   n, i, u) { n = split(uris, u, " "); for (i = 1; i <= n; i++) print u[i], suites }
            BEGIN { enabled = 1 }
            FNR == 1 { flush() }
            /^#/ { next }
            /^[[:space:]]*$/ { flush(); next }
            /^[^[:space:]]/ { field = tolower($0); sub(/:.*/, "", field); sub(/^[^:]*:/, "") }
            { value = " " $0; gsub(/[[:space:]]+/, " ", value) }
            field == "types" { types = types value }
            field == "uris" { uris = uris value }
            field == "suites" { suites = suites value }
            field == "enabled" && value ~ /no/ { enabled = 0 }
            END { flush() }' {} +
    } | awk -v suites=" $* " '{ for (i = 2; i <= NF; i++) if (index(suites, " " $i " ") && !found++) print $1 }'
}

# private_apt ROOT ARGUMENT...: apt with the lists, the cache and the state below ROOT, for the architecture and with the sources
# that ROOT was opened with: the system's own stay what they are.
private_apt() {
    local root=$1 architecture
    shift
    architecture=$(cat "$root/architecture")
    apt-get -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -qq -o Acquire::Retries=3 -o Acquire::Languages=none -o Acquire::http::Timeout=60 \
        -o Dir::Etc::SourceList="$root/sources.list" -o Dir::Etc::SourceParts=- -o Dir::Etc::PreferencesParts=/dev/null -o Dir::Etc::Preferences=- \
        -o Dir::State="$root/state" -o Dir::State::Lists="$root/lists" -o Dir::State::status="$root/status" \
        -o Dir::Cache="$root/cache" -o APT::Sandbox::User=root "$@"
}

# open_archive [--arch ARCH] ROOT LINE...: a new ROOT for private_apt, with these sources (without "deb"), and their lists read.
open_archive() {
    local root architecture
    architecture=$(dpkg --print-architecture)
    if [[ $1 == --arch ]]; then
        architecture=$2
        shift 2
    fi
    root=$1
    shift
    mkdir -p "$root"/{state,lists/partial,cache/archives/partial}
    : >"$root/status"
    echo "$architecture" >"$root/architecture"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s\n' "$@" >"$root/sources.list"
    private_apt "$root" update
}

as_root() {
    if ((EUID)); then sudo DEBIAN_FRONTEND=noninteractive "$@"; else DEBIAN_FRONTEND=noninteractive "$@"; fi
}

# What of these packages is not installed.
missing() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || printf '%s\n' "$name"
    done
}
