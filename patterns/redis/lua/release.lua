#!lua flags=allow-oom
-- release.lua lets go of held topics, and tells who stands by. It works at maxmemory too.
--
-- KEYS, ARGV 1 to 3: see queue.lua
-- ARGV  4, 5, 6, 7, ...  holder, topic, and the last entry that has been handed out in truth; "" if that
--       is what the state says
--
-- Publishes to free "<topic> <topic> ...".
--
-- Returns how many topics were held.

local no = refused()
if no then
	return no
end
local released, free = 0, {}
for i = 4, #ARGV, 3 do
	local q = load(ARGV[i + 1])
	if q.holder == ARGV[i] then
		released = released + 1
		if q.waiting then
			table.insert(free, q.topic)
		end
		q.holder, q.waiting = false, false
		if q.n == 0 then
			dropAll(q)
		else
			redis.call('HDEL', q.state, 'h', 'w')
			if ARGV[i + 2] ~= '' then
				redis.call('HSET', q.state, 'y', ARGV[i + 2])
			end
		end
	end
end
if #free > 0 then
	publish(':free', table.concat(free, ' '))
end
return {released}
