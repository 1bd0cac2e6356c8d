#!/usr/bin/env bash
# Installs on Debian or Ubuntu what building Cutwater, its demo and its tests need, and only what is missing:
#   - a C compiler and linker (the TLS library has a few files of C and assembler)
#   - a Postgres server with its client programs (postgres, initdb, pg_dump, pg_restore, psql), without starting one:
#     no cluster is created, nothing listens, nothing runs at boot because of this script
#   - with the argument "tests": a MariaDB server without the service that would run it (MySQL, which few systems package,
#     is fetched into target/servers/ by the tests that want it: fetch-mysql.sh)
# Says what it does. Uses sudo when it is not run as root. Does nothing when everything is there.
set -eu

say() { echo "install-deps: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }

have_postgres() {
    local folder
    for folder in ${CUTWATER_PG_BIN:-} /usr/lib/postgresql/*/bin $(echo "$PATH" | tr ':' ' '); do
        [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] && [ -x "$folder/pg_dump" ] && return 0
    done
    return 1
}

have_mariadb() {
    local folder
    for folder in ${CUTWATER_TEST_MARIADB:-} /usr/sbin $(echo "$PATH" | tr ':' ' '); do
        [ -x "$folder/mariadbd" ] && have my_print_defaults && return 0
    done
    return 1
}

if ! have cargo && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
    say "Rust is missing; install it first: https://rustup.rs" >&2
    exit 1
fi

packages=()
have cc || packages+=(build-essential)
have_postgres || packages+=(postgresql postgresql-client)
# The client package has a program that makes a data directory needs.
[ "${1:-}" != tests ] || have_mariadb || packages+=(mariadb-server-core mariadb-client-core)
if [ ${#packages[@]} -eq 0 ]; then
    exit 0
fi

if ! have apt-get; then
    say "this system has no apt-get; install by hand: ${packages[*]}" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    have sudo || { say "needs root or sudo to install: ${packages[*]}" >&2; exit 1; }
    as_root=(sudo)
fi

# The server package makes and starts a cluster of its own when it is installed, unless it is told not to before.
if ! have_postgres && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    say "telling the Postgres package not to create a cluster (/etc/postgresql-common/createcluster.conf)"
    "${as_root[@]}" mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi

install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 \
        apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "${packages[@]}" >/dev/null
}
say "installing ${packages[*]}"
# The package lists may be missing, as in a fresh container, or too old to find the packages.
if ! install 2>/dev/null; then
    say "updating the package lists first"
    "${as_root[@]}" apt-get update -qq
    install
fi
say "done"
