#!lua flags=allow-oom
-- raise.lua brings a shard's revision up to what another shard has, so that no change to come gets a lower one. The entry of
-- the log wakes up readers. It works at maxmemory too.
--
-- KEYS, ARGV 1 to 6: see change.lua. The floor is one less than what the revision is to be; there is no name.
--
-- Returns {1, revision}; {0, revision} when it is as high already.

local current = tonumber(redis.call('HGET', head, 'revision') or '0')
if current > tonumber(ARGV[2]) then
	return {0, current}
end
local refused = mayLog()
if refused then
	return refused
end
local revision, before = revise(1, now())
note(revision, before, 'k', 'n')
return {1, revision}
