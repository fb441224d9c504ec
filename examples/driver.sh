#!/bin/sh
# Keeps the network of one VM as a tool for VMs does: a helper that outlives this script, its files in DIRECTORY.
#
#     driver.sh start DIRECTORY [helper option ...]    prints the socket, the MAC and the address
#     driver.sh status|stop DIRECTORY
#
# The VM program connects to DIRECTORY/net, one Ethernet frame a datagram. The same directory gives the same MAC and address again.
set -eu

command=$1 directory=$2
shift 2

# The helper's pid, while it is one: another process may have the number by now.
running() {
	[ -r "$directory/pid" ] && read -r pid <"$directory/pid" && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = vmnet-helper ]
}

value() {
	printf '%s\n' "$line" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"
}

start() {
	mkdir -p "$directory"
	if running; then
		echo "$directory: runs already, as process $pid" >&2
		exit 1
	fi
	[ -s "$directory/id" ] || cat /proc/sys/kernel/random/uuid >"$directory/id"
	rm -f "$directory/line" && mkfifo -m 600 "$directory/line"
	setsid vmnet-helper --socket "$directory/net" --interface-id "$(cat "$directory/id")" "$@" \
		>"$directory/line" 2>"$directory/log" </dev/null &
	echo $! >"$directory/pid"
	# The line comes when the helper is ready. A helper that can't start ends without one.
	if ! read -r line <"$directory/line"; then
		cat "$directory/log" >&2
		rm -f "$directory/pid" "$directory/line"
		exit 1
	fi
	echo "socket=$directory/net mac=$(value vmnet_mac_address) address=$(value vmnet_ipv4_address)"
}

stop() {
	running || return 0
	kill "$pid"
	while running; do sleep 0.1; done
	rm -f "$directory/pid" "$directory/line"
}

case $command in
start) start "$@" ;;
stop) stop ;;
status) if running; then echo "runs as process $pid"; else echo stopped; fi ;;
*) sed -n '3,6s/^# *//p' "$0" >&2; exit 1 ;;
esac
