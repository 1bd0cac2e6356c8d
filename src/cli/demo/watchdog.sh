# Ends a throw-away server and removes its folder once the process that started it is gone, however it went: that process
# holds the other end of our stdin, so a kill -9 closes it too. The folder comes through the pipe and not as an argument,
# or we would find ourselves among the processes that name it.
trap '' INT TERM HUP QUIT
IFS= read -r dir || exit 0
while read -r _; do :; done

# initdb and the postmaster, by their "-D <dir>/data"; backends end with the postmaster. MySQL and MariaDB, by their
# "--datadir=<dir>/data". And commands of the demo, by their "-c <dir>/cutwater.toml". The patterns come through a pipe as
# well: grep would find its own command line.
ours() {
    printf '%s\n' "$dir/data" "--datadir=$dir/data" "$dir/cutwater.toml" |
        grep -lxzFf - /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3
}
for signal in QUIT QUIT QUIT KILL KILL; do
    pids=$(ours)
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086
    kill -s "$signal" $pids 2>/dev/null
    tries=0
    while [ $tries -lt 20 ] && [ -n "$(ours)" ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
done
rm -rf "$dir"
