#!/usr/bin/env bash
# fetch-mysql.sh mysql|mariadb-11: a server for the tests that this machine does not have.
#
# Puts the server and the libraries it needs into target/servers/mysql (target/servers/mariadb-11) and does nothing when
# they are there. They come as packages of another Debian suite (unstable, the only one that has MySQL; trixie), from the
# mirror that this machine's own apt is set to. apt works in a folder of its own: nothing is installed, and neither the
# machine's package lists nor its packages change. The programs are told to use the libraries beside them (patchelf),
# because those suites' are newer than this machine's. Several may run at the same time. A failure is remembered for ten
# minutes, so that a machine without a network, or a day on which unstable's packages do not fit together, costs one try.
set -eu

name=${1:?mysql or mariadb-11}
case $name in
    mysql) suite=sid packages=mysql-server-core server=mysqld share=mysql plugins= ;;
    # The package of the whole server has the plugins, ed25519 among them.
    mariadb-11) suite=trixie packages='mariadb-server-core mariadb-client-core' server=mariadbd share=mariadb plugins=mariadb-server ;;
    *) echo "fetch-mysql: no server $name is known here" >&2; exit 2 ;;
esac
servers=$(cd "$(dirname "$0")/.." && pwd)/target/servers
mkdir -p "$servers"
tree=$servers/$name
exec 9>"$servers/.lock"
flock 9
[ -x "$tree/sbin/$server" ] && exit 0
if [ -n "$(find "$servers" -maxdepth 1 -name "$name.failed" -mmin -10)" ]; then
    cat "$tree.failed" >&2
    exit 1
fi

# The server does not run as root, and the user it runs as instead may not be able to look into this folder. The place is
# chosen first: programs know their libraries by their full path.
place=$tree
if [ "$(id -u)" = 0 ] && ! setpriv --reuid=nobody --regid=nogroup --clear-groups ls "$servers" >/dev/null 2>&1; then
    place=$(mktemp -d "${TMPDIR:-/tmp}/cutwater-$name-XXXXXX")
fi
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# An apt of its own, which believes that nothing is installed: it then brings every library along, libc included.
apt_get() {
    timeout 600 apt-get -q -y -o Dir::Etc::sourcelist="$new/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferencesparts=/dev/null -o Dir::State="$new/apt" -o Dir::State::status="$new/apt/status" \
        -o Dir::Cache="$new/apt" -o Dir::Cache::archives="$new/apt/archives" -o APT::Install-Recommends=false \
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false -o APT::Update::Post-Invoke-Success= \
        -o Debug::NoLocking=1 "$@" </dev/null
}

fetch() {
    local mirror library loader package program file
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "this machine has no apt-get"; return 1; }
    [ -f "$keyring" ] || { echo "this machine is not Debian (there is no $keyring)"; return 1; }
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
    [ -n "$mirror" ] || { echo "apt knows no mirror here"; return 1; }
    mkdir -p "$new/apt/lists/partial" "$new/apt/archives/partial" && : >"$new/apt/status" || return 1
    echo "deb [signed-by=$keyring] ${mirror%/} $suite main" >"$new/apt/sources.list"
    apt_get update && apt_get --download-only install $packages patchelf || return 1
    [ -z "$plugins" ] || (cd "$new/apt/archives" && apt_get download "$plugins") || return 1
    for package in "$new"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$new/all" && rm "$package" || return 1
    done

    # The server and what it reads; then the libraries that its own loader finds for it and for its plugins.
    mkdir -p "$new/tree/sbin" "$new/tree/bin" "$new/tree/lib" "$new/tree/share" "$new/tree/plugin" || return 1
    mv "$new/all/usr/sbin/$server" "$new/tree/sbin/" && mv "$new/all/usr/share/$share" "$new/tree/share/" || return 1
    [ ! -d "$new/all/usr/lib/mysql/plugin" ] || mv "$new"/all/usr/lib/mysql/plugin/*.so "$new/tree/plugin/" || return 1
    for program in mariadb-install-db my_print_defaults resolveip; do
        [ "$server" = mysqld ] || cp -L "$new/all/usr/bin/$program" "$new/tree/bin/" || return 1
    done
    loader=$(find "$new/all" -name 'ld-linux-*.so.*' | head -n 1)
    library=$(dirname "$(find "$new/all" -name libc.so.6 | head -n 1)"):$new/all/usr/lib/mysql/private
    for file in "$new"/tree/sbin/* "$new"/tree/bin/* "$new"/tree/plugin/*.so "$new/all/usr/bin/patchelf"; do
        "$loader" --library-path "$library" --list "$file" 2>/dev/null | sed -n 's/.* => \(\/[^ ]*\).*/\1/p'
    done | sort -u | while read -r file; do cp -nL "$file" "$new/tree/lib/" || return 1; done || return 1
    cp -L "$loader" "$new/tree/lib/" || return 1
    for file in "$new"/tree/sbin/* "$new"/tree/bin/*; do
        [ "$(head -c 4 "$file" | tail -c 3)" = ELF ] || continue
        "$loader" --library-path "$library" "$new/all/usr/bin/patchelf" --force-rpath --set-rpath "$place/lib" \
            --set-interpreter "$place/lib/$(basename "$loader")" "$file" || return 1
    done
    chmod -R a+rX "$new/tree"
    rm -rf "$place" && mkdir -p "$(dirname "$place")" && mv -T "$new/tree" "$place" || return 1
    "$place/sbin/$server" --no-defaults --version
}

if ! fetch >"$new/log" 2>&1; then
    { echo "fetch-mysql: $name could not be fetched:"; tail -n 20 "$new/log"; } | tee "$tree.failed" >&2
    rm -rf "$place"
    exit 1
fi
[ "$place" = "$tree" ] || { rm -rf "$tree"; ln -s "$place" "$tree"; }
rm -f "$tree.failed"
