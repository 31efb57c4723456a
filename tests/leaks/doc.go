// Package leaks lets a server on real backends take everything that clients do, in rounds, and looks at its metrics whenever all
// of them have gone: what grows from round to round leaks. It has a process to itself, because it counts what the process holds.
package leaks
