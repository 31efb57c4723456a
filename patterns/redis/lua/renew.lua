#!lua flags=allow-oom
-- renew.lua restarts the lease of a live identity. It works at maxmemory too: all it adds is an entry of the capped log, and
-- leases that nobody can renew would only make things worse.
--
-- KEYS, ARGV 1 to 5: see change.lua
-- ARGV  6 ttl  in ms; -1: never expires; 0: the one it has
--
-- Returns {1, revision, ttl, expires at (0: never)}; {0} when the identity is not live.

local at = now()
local old = redis.call('HMGET', identity, 'e', 't')
if not live(old[1], at) then
	return {0}
end
local refused = mayLog() or may('ZADD', leases, '1', name) or may('HSET', identity, 'e', '')
	or may('PEXPIREAT', identity, '1') or may('PERSIST', identity)
if refused then
	return refused
end
local ttl = ARGV[6] == '0' and old[2] or ARGV[6]
local length, ends, score = tonumber(ttl), 0, '+inf'
if length >= 0 then
	ends = at + length
	score = ends
end
local revision, before = revise(1)
redis.call('ZADD', leases, score, name)
redis.call('HSET', identity, 'e', ends, 't', ttl)
if length >= 0 then
	redis.call('PEXPIREAT', identity, ends)
elseif old[1] ~= '0' then
	redis.call('PERSIST', identity)
end
note(revision, before, 'k', 'r', 'i', name, 't', ttl, 'e', ends)
return {1, revision, length, ends}
