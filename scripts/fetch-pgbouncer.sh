#!/usr/bin/env bash
# fetch-pgbouncer.sh: a PgBouncer for the tests that put one in the way.
#
# Puts the program, and the libraries that this machine lacks for it, into target/servers/pgbouncer and does nothing when
# they are there. Debian's package is unpacked and not installed: installed it would start a service, now and at every boot.
# A failure is remembered for ten minutes.
set -eu

servers=$(cd "$(dirname "$0")/.." && pwd)/target/servers
mkdir -p "$servers"
tree=$servers/pgbouncer
exec 9>"$servers/.lock"
flock 9
[ -x "$tree/pgbouncer" ] && exit 0
if [ -n "$(find "$servers" -maxdepth 1 -name pgbouncer.failed -mmin -10)" ]; then
    cat "$tree.failed" >&2
    exit 1
fi

# Made beside its final place and moved there when it is whole. apt's own user must be able to write there.
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
chmod a+rwx "$new"

packages() { (cd "$new" && timeout 120 apt-get -q download "$@" </dev/null); }
unpack() { for package in "$new"/*.deb; do dpkg-deb -x "$package" "$new/unpacked" && rm "$package" || return 1; done; }
missing() { LD_LIBRARY_PATH=$new/pgbouncer ldd "$new/pgbouncer/pgbouncer" | sed -n 's/^\s*\(\S*\) => not found.*/\1/p'; }

fetch() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "this machine has no apt-get"; return 1; }
    # The package lists may be missing, as in a fresh container.
    packages pgbouncer || { timeout 300 apt-get update -qq </dev/null && packages pgbouncer; } || return 1
    local depends
    depends=$(dpkg-deb -f "$new"/pgbouncer_*.deb Depends | tr ',' '\n' | awk '$1 ~ /^lib/ && $1 !~ /^libc6/ { print $1 }')
    unpack && mkdir "$new/pgbouncer" && cp "$new/unpacked/usr/sbin/pgbouncer" "$new/pgbouncer/" || return 1
    [ -z "$(missing)" ] && return 0
    echo "libraries that are missing here: $(missing | tr '\n' ' ')"
    packages $depends && unpack || return 1
    for library in $(missing); do
        find "$new/unpacked" -name "$library" -exec cp -L {} "$new/pgbouncer/" \; || return 1
    done
    [ -z "$(missing)" ] || { echo "still missing: $(missing | tr '\n' ' ')"; return 1; }
}

if ! { fetch >"$new/log" 2>&1 && LD_LIBRARY_PATH=$new/pgbouncer "$new/pgbouncer/pgbouncer" --version >/dev/null; }; then
    { echo "fetch-pgbouncer: PgBouncer could not be fetched:"; tail -n 10 "$new/log"; } | tee "$tree.failed" >&2
    exit 1
fi
chmod -R a+rX "$new/pgbouncer"
rm -rf "$tree" "$tree.failed"
mv "$new/pgbouncer" "$tree"
