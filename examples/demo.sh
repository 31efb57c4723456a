#!/bin/sh
# The multicast registry step by step, with the command line and with curl, against a running server:
#
#   make run                 in one terminal
#   examples/demo.sh         in another
#
# PRISM (default: bin/prism, built first) is the command to use, HTTP (default: 127.0.0.1:8981) the server's HTTP address.
set -eu
cd "$(dirname "$0")/.."

PRISM=${PRISM:-bin/prism}
HTTP=${HTTP:-127.0.0.1:8981}
API=http://$HTTP/v1/namespaces/default

if [ "$PRISM" = bin/prism ]; then
	make --no-print-directory build >/dev/null
fi
if ! curl -fsS "http://$HTTP/readyz" >/dev/null; then
	echo "no server at $HTTP: start one with 'make run'" >&2
	exit 1
fi

step() {
	if [ -t 1 ]; then printf '\n\033[1m# %s\033[0m\n' "$1"; else printf '\n# %s\n' "$1"; fi
}
# show prints a command as one would type it, and runs it.
show() {
	line=''
	for word in "$@"; do
		case $word in
		*[!A-Za-z0-9_./:=,@%+-]*) line="$line '$word'" ;;
		*) line="$line $word" ;;
		esac
	done
	printf '$%s\n' "$line"
	"$@"
}

received=$(mktemp -d)
subscriber='' events=''
cleanup() {
	for pid in $subscriber $events; do kill "$pid" 2>/dev/null || true; done
	rm -rf "$received"
}
trap cleanup EXIT

step 'Register: one by hand, one over HTTP, a file of them in bulk'
show $PRISM register dev-1 --replace --meta room=engineering --meta floor:=3 --ttl 10m
show curl -fsS -X POST "$API/identities" -d '{"identity":"dev-2","mode":"REPLACE","metadata":{"room":"engineering","floor":4}}'
show $PRISM register --replace --file examples/stations.jsonl

step 'Enumerate: who is in engineering, and who stands higher than 12,000 ft?'
show $PRISM enumerate --filter '{"room":"engineering"}'
show $PRISM enumerate --filter '{"elevation_ft":{"$gt":12000}}'
show curl -fsS -X POST "$API/identities:enumerate" -d '{"filter":{"room":"engineering"},"include_metadata":false}'

step 'Subscribe: dev-1 with the command line, dev-2 with curl and server-sent events'
$PRISM subscribe dev-1 --reply 'on our way' -o jsonl >"$received/dev-1" &
subscriber=$!
curl -fsSN "$API/identities/dev-2:subscribe" >"$received/dev-2" &
events=$!
for name in dev-1 dev-2; do
	tries=0
	until $PRISM multicast --filter "{\"room\":\"engineering\",\"floor\":$((${name#dev-} + 2))}" --payload 'are you there?' >/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 50 ] || { echo "$name did not attach" >&2; exit 1; }
		sleep 0.1
	done
done
echo 'both are attached'

step 'Multicast: to everybody in engineering, with an answer for each'
show $PRISM multicast --filter '{"room":"engineering"}' --payload 'Fire drill at noon'

step 'Replies: an ack can carry an answer'
show $PRISM multicast --filter '{"room":"engineering"}' --payload 'Who is coming?' --replies

step 'What they received'
for name in dev-1 dev-2; do
	tries=0
	until grep 'Fire drill' "$received/$name"; do
		tries=$((tries + 1))
		[ $tries -lt 50 ] || { echo "$name received nothing" >&2; exit 1; }
		sleep 0.1
	done
done

step 'Unregister: gone at once'
show $PRISM unregister dev-1
show curl -fsS -X DELETE "$API/identities/dev-2"
show $PRISM enumerate --filter '{"room":"engineering"}'
