// Package tracing makes OpenTelemetry traces of what a server does, and sends them to a collector over OTLP.
//
// # Flow
//
//	proxy ── Tracer: a span for each call ────────┐
//	coordinator ── Slots: a span for each        ─┼─► queue, bounded ─► OTLP ─► collector
//	               operation on a slot           ─┘
//
// Nothing of it is global: servers that share a process have each their own. What cannot be sent is dropped, counted and
// logged; no call waits for a collector or fails because of it.
//
// A nil Tracing is one that is off. Its methods do nothing, and return what costs nothing.
package tracing
