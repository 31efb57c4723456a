// Package redis fills the registry, messaging and durability slots with Redis 7 or newer: one server, a Sentinel group or a
// Cluster.
//
// # Keys
//
// All keys of a namespace share a hash tag, so that one script can change them together, on a cluster too. With shards: N a
// namespace has N such groups, each on its own slot, and an identity belongs to one of them:
//
//	{prism:presence}:id:<name>   hash     one identity: m metadata (JSON), t TTL in ms (-1: never expires), r registered
//	                                      at and e expires at, both in ms of the Unix epoch (e 0: never; after an outage it
//	                                      may be later than e says), v revision. Redis expires the key a day after e, or
//	                                      t after it where that is longer; a sweep removes it soon after e.
//	{prism:presence}:leases      zset     name -> e (+inf: never): membership, count, and the order of sweeping
//	{prism:presence}:head        hash     revision: of the latest change; epoch: random, new when Redis lost the data; seen:
//	                                      when somebody swept last, swept: the same, and met all that was due; since, until:
//	                                      when the latest outage was; all in ms of the Unix epoch: see lua/outage.lua
//	{prism:presence}:log         stream   the change log, capped: entry <revision>-0 with k (p put, r renew, d delete,
//	                                      x expire), i name, and m t r e as far as they changed; b, the revision before,
//	                                      unless that is one less; k n: the revision was raised, nothing else (shards);
//	                                      k o: an outage from s until u
//
// Names are spelled as multicastregistry.EncodeName does. With shards the tag is {prism:presence:<n>}.
//
// A Durability keeps, in the namespace's group of keys, all of which expire by themselves:
//
//	{prism:presence}:q:<topic>   stream   the messages of a topic, each with its id i and frame f (see encodeFrame)
//	{prism:presence}:t:<topic>   hash     the state of a topic: its messages by id, how many, who holds it: see lua/queue.lua
//	{prism:presence}:c:<lease>   hash     the lease of a process, and how many notices were published for it
//	{prism:presence}:d:<age>     hash     how many messages are stored, by slices of time: see lua/queue.lua
//	{prism:presence}:m:<id>      hash     the record of a multicast: see lua/record.lua
//	{prism:presence}:s:<id>      hash     its settlements: see lua/settle.lua
//	{prism:presence}:k:<key>     string   the id of the record that has an idempotency key
//	{prism:presence}:ids         zset     the ids of all records
//
// and publishes on the channels {prism:presence}:n:<process> and {prism:presence}:free.
//
// # Guarantees
//
// Every change is one script, which checks, writes and logs by Redis TIME, or does nothing; renewals that come at once share
// one, each with an entry of its own in the log. An identity is absent from the millisecond at which its lease ends, by Redis'
// clock, whether Redis or a sweep has removed it or not. Nothing relies on keyspace notifications, and no command looks through
// the whole keyspace.
//
// An outage ends no lease, be it one of Redis, of the way to it, or of all proxies, planned or not. It begins with the last
// sweep before it, and is one when the next call comes more than OutageAfter later. What had not ended when it began lasts for
// its TTL from its end on: whoever heartbeats has that long to do it, and whoever is gone expires then. All scripts go by that
// rule from the first one after the outage on, a feed tells of it before it says Synced, and each process that sweeps logs it.
// What ended in the second before the outage may come back with it, for that time. When Redis is away for longer than a day, it
// drops leases that ended more than a day ago.
//
// Revisions count up from 1 without gaps, unless shards share a clock, see Sharded, or Redis has lost changes: then the next
// one goes beyond every revision that the process which makes it has seen, so that a registration that was lost cannot be taken
// for its successor. When the head was lost, with or without the rest, the log begins anew with another epoch.
//
// A change feed begins with a snapshot when another server answers than its position is from, be it for a restart, a failover or
// a slot that has moved: that may have begun with older data, and there is no telling. Without the right to INFO a feed notices
// that only when the revision went back.
//
// A hash that is gone before its time, evicted or deleted by hand, is not live, though it counts until its lease would have
// ended; under an identity that never expires, until that is registered or deleted again. So maxmemory-policy should be
// noeviction. At maxmemory registrations are ErrQuota; renewals, deletions, sweeps and all reads go on.
//
// # Rights
//
// A Redis user needs "~{prism:*" with +ping, +hello, +info, +client|setname, +eval, +evalsha, +eval_ro, +evalsha_ro, +time,
// +hget, +hmget, +hset, +hincrby, +zadd, +zrem, +zscore, +zmscore, +zscan, +zcount, +zrange, +xadd, +xread, +del, +pexpireat,
// +persist;
// for durability also +exists, +pexpire, +pttl, +hdel, +hgetall, +xrange, +xdel, +xlen, +xtrim, +get, +set, +zcard, +zpopmin and
// +zrevrangebylex; with "&prism*", "&{prism:*" and the pub/sub commands for messaging and durability; and with +cluster|slots,
// +cluster|shards and +role on a Cluster or behind Sentinels. A script without one of its rights changes nothing. +info is for
// change feeds, see above, and scans.
package redis
