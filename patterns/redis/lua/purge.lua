#!lua flags=allow-oom
-- purge.lua removes everything that is stored for a topic. It works at maxmemory too.
--
-- KEYS, ARGV 1 to 3: see queue.lua
-- ARGV  4 topic
--
-- Returns how many messages that were.

local no = refused()
if no then
	return no
end
local q = load(ARGV[4])
local n = q.n
q.dropped = 0
dropAll(q)
return {n}
