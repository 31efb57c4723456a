// Package bench puts a load on running servers and tells what became of it: how long calls took, counted from when they were
// due, and whether every message arrived as it was reported.
//
// Arrivals do not wait for answers. With a rate, operations are due at fixed times (pace.go), whatever the servers do meanwhile;
// a worker takes the next one that is due, and the time that it waited for a worker counts: a server that stalls for a second
// shows a second of late operations, not one slow call (no coordinated omission). Without a rate, each worker begins its next
// operation when the one before has ended, and latencies are those of a server that is kept busy.
//
// A run has stages (run.go): identities are registered, in groups; real subscribers attach to them (audience.go); the load; a
// wait for what is still on its way; a reckoning (tally.go) that holds each multicast's report against what the subscribers have
// received; and the identities are removed. What is measured is a Result, which can be written as JSON and as a page (report.go).
package bench
