#!lua
-- put.lua registers an identity. It is refused as a whole when Redis is at maxmemory.
--
-- KEYS, ARGV 1 to 5: see change.lua
-- ARGV  6 metadata  stored form
--       7 ttl       in ms; -1: never expires
--       8 create    "1": not over a live identity
--       9 limit     most live identities; 0: any number
--
-- Returns {1, revision, registered at, expires at (0: never)}; {0} when a live identity is in the way; {2} when the limit is
-- reached. An expired identity that no sweep has met is logged as such first.

local metadata, ttl, limit = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[9])
local at = now()
local old = redis.call('HGET', identity, 'e')
local lives = live(old, at)
if lives and ARGV[8] == '1' then
	return {0}
end
if limit > 0 and not lives then
	local others = redis.call('ZCOUNT', leases, string.format('(%.0f', at), '+inf')
	if others >= limit then
		local score = redis.call('ZSCORE', leases, name)
		if not score or tonumber(score) <= at or others > limit then
			return {2}
		end
	end
end

local refused = mayLog() or may('ZADD', leases, '1', name) or may('HSET', identity, 'm', '')
	or may('PEXPIREAT', identity, '1') or may('PERSIST', identity)
if refused then
	return refused
end
local ends, score = 0, '+inf'
if ttl >= 0 then
	ends = at + ttl
	score = ends
end
local added = redis.call('ZADD', leases, score, name)
local revision, before = revise(1)
if not lives and added == 0 then
	note(revision, before, 'k', 'x', 'i', name)
	revision, before = revise(1)
end
redis.call('HSET', identity, 'm', metadata, 't', ttl, 'r', at, 'e', ends, 'v', revision)
if ttl >= 0 then
	redis.call('PEXPIREAT', identity, ends)
elseif old then
	redis.call('PERSIST', identity)
end
note(revision, before, 'k', 'p', 'i', name, 'm', metadata, 't', ttl, 'r', at, 'e', ends)
return {1, revision, at, ends}
