// Package replica serves a registry from a copy of it in this process.
//
// A Registry follows the change feed of another one, its source, into an index, and answers all reads from there. Writes go to
// the source. How recent a read is, Reach says; a copy that has been without news for too long answers nothing: what it
// knows may be wrong by then.
package replica
