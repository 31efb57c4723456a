#!lua flags=allow-oom
-- purge.lua removes everything that is stored for a topic. It works at maxmemory too.
--
-- KEYS, ARGV 1 to 3: see queue.lua
-- ARGV  4 topic
--
-- Returns how many messages that were.

local no = refused() or may('HGETALL', states .. 'x')
if no then
	return no
end
local q = load(ARGV[4])
local n = q.n
q.dropped = 0
if n > 0 then
	local fields = redis.call('HGETALL', q.state)
	for i = 1, #fields, 2 do
		if string.sub(fields[i], 1, 1) == 'm' then
			count(string.match(fields[i + 1], '^%d+'), -1)
		end
	end
	settle()
end
dropAll(q)
return {n}
