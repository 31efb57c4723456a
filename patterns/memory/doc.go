// Package memory fills all three slots inside one process: for development, tests and embedding, and as the reference that
// every other backend is measured against.
//
// Nothing outlives the process. There are no goroutines and nothing to close: an expired identity is recognised whenever it
// is looked at, and swept a few at a time by later writes, so that any number of leases may end at once without anybody
// waiting. Metadata is copied on its way in and on its way out; what is stored is never changed, only replaced.
package memory
