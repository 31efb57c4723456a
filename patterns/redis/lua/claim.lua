#!lua flags=allow-oom
-- claim.lua makes consumers the holders of topics that nobody holds whose lease lasts. To claim again what one holds is no
-- error. For the other topics it notes that somebody stands by.
--
-- KEYS, ARGV 1 to 3: see queue.lua
-- ARGV  4 the claiming process' "<process>/<session>"
--       5, 6, 7, 8, ...  holder to be, topic
--
-- Returns two strings for each topic: "-" and "" when somebody else holds it; "" and "" when it is claimed and nothing is stored;
-- else the last entry that a holder was given, and the last entry there is. Nothing at all when the claiming process' own lease
-- is gone.

local no = refused()
if no then
	return no
end
local out = {}
if redis.call('EXISTS', leases .. ARGV[4]) == 0 then
	return out
end
for i = 5, #ARGV, 2 do
	local holder, q = ARGV[i], load(ARGV[i + 1])
	local y, s = '', ''
	if q.holder and q.holder ~= holder and process(q.holder) then
		y = '-'
		if not q.waiting then
			redis.call('HSET', q.state, 'w', 1)
		end
	else
		redis.call('HSET', q.state, 'h', holder)
		redis.call('PEXPIRE', q.state, ARGV[2])
		if q.n > 0 or q.dropped > 0 then
			y, s = q.yielded or '0-0', q.last or '0-0'
		end
	end
	table.insert(out, y)
	table.insert(out, s)
end
return out
