#!lua flags=allow-oom
-- delete.lua removes an identity. It works at maxmemory too.
--
-- KEYS, ARGV 1 to 6: see change.lua
-- ARGV  7 only  remove the registration of this revision only; 0: any
--
-- Returns {1, revision} when a live identity was removed; {0} when there was nothing to do; {0, revision} when what was there
-- had expired, which is logged as such.

local at = now()
local found = outage(head, after, at)
local old = redis.call('HMGET', identity, 'e', 't', 'v')
local lives = live(old[1], old[2], at)
if lives and ARGV[7] ~= '0' and old[3] ~= ARGV[7] then
	return {0}
end
if not lives and not redis.call('ZSCORE', leases, name) then
	return {0}
end
local refused = mayLog() or may('ZREM', leases, name) or may('DEL', identity)
if refused then
	return refused
end
if found then
	extend(at)
end
local revision, before = revise(1, at)
redis.call('ZREM', leases, name)
redis.call('DEL', identity)
note(revision, before, 'k', lives and 'd' or 'x', 'i', name)
return {lives and 1 or 0, revision}
