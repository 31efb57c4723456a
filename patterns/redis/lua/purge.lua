#!lua flags=allow-oom
-- purge.lua removes everything that is stored for a topic. It works at maxmemory too.
--
-- KEYS, ARGV 1 to 3: see queue.lua
-- ARGV  4 topic
--
-- Returns how many messages that were.

local no = refused() or may('XTRIM', streams .. 'x', 'MINID', '=', '1-0')
if no then
	return no
end
local q = load(ARGV[4])
local n = q.n
q.dropped = 0
if n > 0 then
	-- Redis counts what it trims: a call for each slice that the queue reaches over, not a step for each message.
	local first = redis.call('XRANGE', q.stream, '-', '+', 'COUNT', 1)[1]
	if first then
		local last, left = tonumber(string.match(q.last, '^%d+')), q.n
		-- Entries may be ahead of the clock: they have the time of the last one.
		for slice = math.floor(string.match(first[1], '^%d+') / width), math.floor(math.min(last, at) / width) - 1 do
			local ends = (slice + 1) * width
			local gone = redis.call('XTRIM', q.stream, 'MINID', '=', string.format('%.0f-0', ends))
			count(ends - 1, -gone)
			left = left - gone
		end
		count(last, -left)
	end
	settle()
end
dropAll(q)
return {n}
