// Package watch tells watchers what changes about the identities that match their filters.
//
// # Flow
//
// Whoever keeps an index (patterns/memory, replica) has a Hub beside it, and tells the hub of each change what the identity was
// before it and is after it:
//
//	change ──> index and Hub.Append, as one step ──> log ──> dispatch ──> a short queue a watcher ──> Hub.Watch
//
// The writer only appends to the log, which is bounded: that is all that watching costs it. Dispatching is done by the watchers
// themselves, whichever is idle. Watchers of the same filter are a group; a change is compared with those groups only whose
// filter demands a value, by $eq or $in, that the identity has or had, and with those whose filter demands none.
//
// A watcher whose queue is full loses the queue and keeps the place in the log where it began: when it is ready again it reads
// the log from there, and each identity's changes as one. When the log does not reach back so far it is reset. A token is a
// place in the log as well, so that going on after a break is the same work.
//
// # Snapshots
//
// A snapshot is read in pages, between which the registry changes. After a page everything that the page can have seen has been
// dispatched; what was told of identities up to the end of that page is then told, unless the page shows it already, and what
// was told of others is left out, because later pages show it. Whoever is in the index is shown, though a lease may have ended
// that nobody has swept yet: that will be told as a change, to those who watched before and to those who begin now. So what a
// watcher has been told is exact up to a name at every moment, and whole with the last page.
package watch
