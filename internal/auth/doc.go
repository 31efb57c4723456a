// Package auth answers two questions about a call: who makes it, and what may they do in a namespace. It knows nothing of gRPC
// or HTTP. A server takes credentials off the wire, asks an [Authenticator] for the [Caller], asks the namespace's [Policy] for
// a [Grant], and applies the grant to what the call names.
//
// # Who is calling
//
// [Open] builds an Authenticator from a [Config] that admits any of three kinds of credentials: static tokens of which the
// server knows only the hash, JSON web tokens of one issuer, and client certificates. A Config without any admits everybody as a
// Caller of [MethodNone], whom only [AllowAll] grants anything; where that is tolerable is the server's decision.
//
// A server hands over what it has: the token from the Authorization header, which [ParseBearer] takes apart, and the
// certificates of the TLS connection, which [PeerCertificates] gives only when they were verified. A bearer token decides alone:
// one that is not accepted never falls back to the certificate beside it. Every failure wraps [ErrUnauthenticated]; its text is
// fit for the caller and says missing, invalid or expired, and [Reason] says the rest to the log.
//
// The keys of a JWT issuer come from OIDC discovery, a URL or a file. One goroutine, which [Authenticator.Close] waits for, reads
// them again periodically, and out of turn when a token names a key that is not known: at most once in ten seconds, so that
// invented key ids cannot hammer the issuer. When the issuer is down, the keys that are known stay good for as long as it is; a
// key that is revoked in that time is not noticed. Open waits a bounded time for the first keys and then goes on without: tokens
// are refused as invalid until keys arrive, and [Authenticator.Ready] says so to a readiness probe. A token that was verified is
// remembered, by hash, for a minute at most, and forgotten when the issuer's keys change.
//
// What lasts longer than a request, a stream, ends at [Caller.Expires].
//
// # TLS
//
// [ServerTLS] reads certificate, key and, if clients have certificates, their authority from files, and reads them again when
// they change. A set of files that does not work (half written, or a key that does not fit) changes nothing and is logged once.
// Connections that are open stay as they are. [Reloader.Config] takes the protocols to negotiate because a configuration that
// changes from handshake to handshake cannot inherit them: a gRPC server asks for "h2", an HTTP server for "h2" and "http/1.1".
//
// # What may they do
//
// A namespace has a list of [Rule]s, which [Compile] checks and prepares. A rule says who it is about, which [Role]s they have,
// and three restrictions that bind only what the rule itself grants: the identities they may act as, a filter that is ANDed onto
// every query of theirs, and fields of the metadata that they cannot see. [Policy.Grant] puts together all rules that match a
// caller and give the operation's role; without any the operation is denied. The caller then owns the identities of every such
// rule, sees what any one of the filters admits (a rule without a filter restricts nothing), and is denied the fields that every
// one of the rules hides. So two rules for one caller add up, and a rule with a filter beside one without has no effect.
//
// Identities and strings in filters may hold "${sub}", the caller's subject, and "${claim.NAME}", a claim that is a string or an
// integer; "$${" is a literal "${". What is filled in is literal: a star in a claim is a star and no wildcard. A caller who lacks
// the claim, or has it empty, owns nothing through that identity, and is granted nothing by a rule whose filter needs it. Names
// of claims are looked up whole first and then along dots, so "realm.roles" reaches into an object. The identity "${sub}/*"
// belongs to the subject, and a subject called "a/b" lives inside that of "a": an issuer that lets people choose a subject should
// not let them choose the separator.
//
// # What a server must do with a grant
//
//   - Before register, heartbeat, unregister, attaching to an identity and acknowledging: [Grant.CheckIdentity]. Before register
//     also [Grant.CheckMetadata]: otherwise a tenant could register what another tenant's filter selects and receive their
//     messages. So two tenants' filters have to look at the same fields.
//   - Before metadata that the caller sends are used: [Grant.CheckFields].
//   - Before any query: [Grant.CheckFilter], and [Grant.CheckPaths] for the fields that it sorts by, counts by or asks for. Then
//     query with [Grant.Restrict] of the caller's filter. What is said about the filter itself (warnings, clauses, the text that
//     is kept with a multicast) is said about the caller's own, never about the restricted one; suggestions of field names leave
//     out what [Grant.Hides].
//   - Before metadata is answered: [Grant.Redact] or [Grant.RedactEncoded].
//
// Every refusal wraps [ErrPermissionDenied] with a text that holds nothing but the operation, the namespace and the identity that
// the caller named.
package auth
