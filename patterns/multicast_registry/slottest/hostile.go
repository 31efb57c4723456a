package slottest

import "strings"

// HostileIdentities are names that break a backend which builds keys, patterns or subjects from them, each a legal identity
// of its own. Many look like another one after a careless encoding, split, trim or case folding.
func HostileIdentities() []string {
	names := []string{
		// wildcards and separators of NATS, Redis, SQL, globs and paths
		"*", ">", ".", "..", "a.b", "a.*", "a.>", "*.b", ".a", "a.", "?", "[a-z]", "[", "]", "^", "$", "%", "_", "%a", "a%", "a_", "_a",
		"/", "a/b", "../a", "../../etc/passwd", `\`, `a\b`, `\*`, ":", "a:b", "a::b", "#", "a#b", "|", "&", "&&", ";", ",", "!", "~", "+", "@",
		// white space and control characters
		" ", "  ", "a b", " a", "a ", "a  b", "\t", "\n", "\r", "\r\n", "a\r\nPUB prism.b 1\r\nx\r\n", "a\n", "\na", "\x00", "a\x00", "a\x00b",
		"\x01", "\x1b[31m", "\x7f", "\v", "\f", "a\u00a0b", "a\u2003b", "\u200b", "a\u200b", "\ufeffa", "\u2028", "\u202e",
		// quotes and code
		"'", `"`, "`", "''", "' OR '1'='1", "'; DROP TABLE identities; --", "a--", "/*", "*/", "${a}", "{{a}}", "<a>", "%s", "%d%n", "$1", "return 1",
		// braces and hash tags of Redis Cluster
		"{", "}", "{}", "{a}", "{hash}", "x{hash}y", "}{", "{a", "a}",
		// what encodings make of others
		"=", "=2A", "=2a", "=3E", "=20", "%2A", "%2a", "%20", "%00", "+", "a=20b", "a%20b", "a+b", "=3D2A", "==", "==2A", "&#42;", "Kg==", "Kg", `\u002a`, `\x2a`,
		"prism", "prism.a", "prism.default.a", "_INBOX", "_INBOX.a", "$SYS", "$JS.API.INFO", "default", "expiry", "revision",
		// case, and what looks alike
		"a", "A", "aA", "Aa", "AA", "aa", "user-1", "User-1", "USER-1", "user_1", "user 1", "user.1", "user-01", "user-1 ",
		"0", "00", "-0", "+0", "0.0", "-1", "1e3", "true", "null", "nil", "undefined", "NaN", "[]", `""`, "-", "--", "-n", "--help",
		// unicode: composed and decomposed, ligatures, dotless i, sharp s, right to left, beyond the first plane
		"é", "e\u0301", "É", "ﬁ", "fi", "ı", "İ", "i", "ß", "ss", "Å", "Å", "K", "K", "а", "日本", "日", "本", "שלום", "مرحبا",
		"😀", "👩‍👩‍👧", "👩", "🇫🇷", "\U0010ffff", "\ufffd", "\uffff",
		// lengths
		strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("x", 255) + "y", strings.Repeat("*", 256),
		strings.Repeat("é", 128), strings.Repeat("😀", 64), strings.Repeat(" ", 256), strings.Repeat(".", 256), strings.Repeat("=", 256),
	}
	seen := make(map[string]bool, len(names))
	unique := names[:0]
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			unique = append(unique, name)
		}
	}
	return unique
}

// hostileStrings are keys and values of metadata that break a backend which builds paths, scripts or queries from them.
func hostileStrings() []string {
	return append(HostileIdentities(), "", "a.b.c", "$eq", "$where", "a.lt", `a\.b`, "metadata", "id", "ttl", "__proto__", "constructor",
		"KEYS[1]", "]]", "[[", "redis.call('FLUSHALL')", "$.a", "$[0]", "->>'a'", "{a,b}", "0", strings.Repeat("long ", 5000))
}
