#!lua flags=allow-oom
-- delete.lua removes an identity. It works at maxmemory too.
--
-- KEYS, ARGV 1 to 5: see change.lua
-- ARGV  6 only  remove the registration of this revision only; 0: any
--
-- Returns {1, revision} when a live identity was removed; {0} when there was nothing to do; {0, revision} when what was there
-- had expired, which is logged as such.

local at = now()
local old = redis.call('HMGET', identity, 'e', 'v')
local lives = live(old[1], at)
if lives and ARGV[6] ~= '0' and old[2] ~= ARGV[6] then
	return {0}
end
if not lives and not redis.call('ZSCORE', leases, name) then
	return {0}
end
local refused = mayLog() or may('ZREM', leases, name) or may('DEL', identity)
if refused then
	return refused
end
local revision, before = revise(1)
redis.call('ZREM', leases, name)
redis.call('DEL', identity)
note(revision, before, 'k', lives and 'd' or 'x', 'i', name)
return {lives and 1 or 0, revision}
