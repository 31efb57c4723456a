#!lua flags=allow-oom
-- remove.lua removes messages for good: those that were acked or withdrawn. It works at maxmemory too.
--
-- KEYS, ARGV 1 to 3: see queue.lua
-- ARGV  4, 5, 6, 7, ...  topic, id, and the entry that it must be or "" for any
--
-- Returns 1 for each message that was stored until now, else 0.

local no = refused()
if no then
	return no
end
local out = {}
for i = 4, #ARGV, 3 do
	local q = load(ARGV[i], ARGV[i + 1])
	local removed = 0
	if q.entry then
		local entry, ms, size = string.match(q.entry, '^((%d+)%S+) (%d+)$')
		if ARGV[i + 2] == '' or ARGV[i + 2] == entry then
			removed = 1
			count(ms, -1)
			if q.n == 1 then
				dropAll(q)
			else
				redis.call('XDEL', q.stream, entry)
				redis.call('HDEL', q.state, q.field)
				redis.call('HSET', q.state, 'n', q.n - 1, 'b', q.bytes - size)
			end
		end
	end
	table.insert(out, removed)
end
settle()
return out
