#!lua
-- put.lua registers an identity. It is refused as a whole when Redis is at maxmemory.
--
-- KEYS, ARGV 1 to 6: see change.lua
-- ARGV  7 metadata  stored form
--       8 ttl       in ms; -1: never expires
--       9 create    "1": not over a live identity
--       10 limit    most live identities; 0: any number
--
-- Returns {1, revision, registered at, expires at (0: never)}; {0} when a live identity is in the way; {2} when the limit is
-- reached. An expired identity that no sweep has met is logged as such first.

local metadata, ttl, limit = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[10])
local at = now()
local found = outage(head, after, at)
local old = redis.call('HMGET', identity, 'e', 't')
local lives = live(old[1], old[2], at)
if lives and ARGV[9] == '1' then
	return {0}
end
if limit > 0 and not lives then
	local others = count(leases, string.sub(identity, 1, -#name - 1), at)
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
if found then
	extend(at)
end
local expires, score = 0, '+inf'
if ttl >= 0 then
	expires = at + ttl
	score = expires
end
local added = redis.call('ZADD', leases, score, name)
local revision, before = revise(1, at)
if not lives and added == 0 then
	note(revision, before, 'k', 'x', 'i', name)
	revision, before = revise(1, at)
end
redis.call('HSET', identity, 'm', metadata, 't', ttl, 'r', at, 'e', expires, 'v', revision)
if ttl >= 0 then
	keepUntil(identity, expires, ttl)
elseif old[1] then
	redis.call('PERSIST', identity)
end
note(revision, before, 'k', 'p', 'i', name, 'm', metadata, 't', ttl, 'r', at, 'e', expires)
return {1, revision, at, expires}
