// Package examples holds example data and configurations, embedded so that the demo works from any folder.
package examples

import _ "embed"

// Stations is stations.jsonl: weather-station identities, one JSON object a line with identity, metadata and ttl. Source
// and licence are stated in README.md beside it.
//
//go:embed stations.jsonl
var Stations []byte
