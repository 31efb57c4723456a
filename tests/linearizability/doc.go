// Package linearizability checks that a registry behind two proxies is one registry, whatever happens on the way to Redis:
// clients of both write and read the same few identities at once, while the proxies' connections are cut, reset, delayed and
// stalled, and Redis is paused, killed and started again. Porcupine, a checker of linearizability, then looks for an order of
// all operations in which each has the answer that a registry in one place would have given, and which has every operation
// between its call and its return.
//
//	PRISM_LINEARIZABILITY=5m go test -race -run Linearizable -timeout 20m -artifacts ./tests/linearizability
package linearizability
