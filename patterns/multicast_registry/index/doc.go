// Package index keeps identities in memory and answers filters over their metadata in a time that follows what is returned,
// not what is registered. It knows no backend and, but for the present that it is told, no clock: whoever has the truth
// about identities puts it here, and asks.
//
// # What is kept
//
// A document is one string, the name with the encoded metadata behind it, so that a garbage collector with a million of them
// has little to do, and so that answers hand out the metadata as it is. Documents live in segments of 65,536 slots. A segment
// has an inverted index of its own: for each path through the objects of the metadata, a posting of the documents that have
// each JSON type there, and ordered dictionaries of the numbers and strings with a posting for each. A posting is a single
// slot, a sorted list or a bitmap, whichever is smallest. Every operator of the filter language becomes an operation on
// postings, and what is selected is exactly what filter.Match would select. Where looking at the few documents that are left
// costs less than the postings of the next clause, that is done.
//
// All names are also kept in order, for pages of much that matches. Little that matches is sorted instead.
//
// # Who waits for whom
//
// There is one writer at a time. It locks a segment for the few microseconds of one change, or of the removal of up to 64
// documents whose lease has ended. A query locks one segment after the other, shared: strings that a regular expression has to
// judge are judged in between, with nothing locked. A renewal locks its segment shared.
//
// # What a query sees
//
// A query sees each segment as it is when its turn comes. What matches from the start of a query to its end is in the answer,
// once; what is changed meanwhile may be in it or not. A change is seen by every query that begins after it has returned. A
// lease that has ended is absent from then on, without anything being done about it; Sweep only gives the memory back.
package index
