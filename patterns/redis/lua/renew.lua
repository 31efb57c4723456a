#!lua flags=allow-oom
-- renew.lua restarts the lease of a live identity. It works at maxmemory too: all it adds is an entry of the capped log, and
-- leases that nobody can renew would only make things worse.
--
-- KEYS, ARGV 1 to 6: see change.lua
-- ARGV  7 ttl  in ms; -1: never expires; 0: the one it has
--
-- Returns {1, revision, ttl, expires at (0: never), revision of the registration}; {0} when the identity is not live.

local at = now()
local found = outage(head, after, at)
local old = redis.call('HMGET', identity, 'e', 't', 'v')
if not live(old[1], old[2], at) then
	return {0}
end
local refused = mayLog() or may('ZADD', leases, '1', name) or may('HSET', identity, 'e', '')
	or may('PEXPIREAT', identity, '1') or may('PERSIST', identity)
if refused then
	return refused
end
if found then
	extend(at)
end
local ttl = ARGV[7] == '0' and old[2] or ARGV[7]
local length, expires, score = tonumber(ttl), 0, '+inf'
if length >= 0 then
	expires = at + length
	score = expires
end
local revision, before = revise(1, at)
redis.call('ZADD', leases, score, name)
redis.call('HSET', identity, 'e', expires, 't', ttl)
if length >= 0 then
	keepUntil(identity, expires, length)
elseif old[1] ~= '0' then
	redis.call('PERSIST', identity)
end
note(revision, before, 'k', 'r', 'i', name, 't', ttl, 'e', expires)
return {1, revision, length, expires, tonumber(old[3])}
