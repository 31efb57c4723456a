package multicastregistry

// TraceParent returns a traceparent of W3C Trace Context as it is, such as
// "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", and nothing for what is none. What is in it is for others to
// read.
func TraceParent(text string) string {
	const dashes uint64 = 1<<2 | 1<<35 | 1<<52
	if len(text) != 55 || text[:2] == "ff" {
		return ""
	}
	for i := range len(text) {
		c := text[i]
		if dashes>>i&1 == 1 {
			if c != '-' {
				return ""
			}
			continue
		}
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return text
}
