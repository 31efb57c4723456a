#!lua flags=allow-oom
-- check.lua tells what may be there to fetch of held topics, and has their states kept on.
--
-- KEYS, ARGV 1 to 3: see queue.lua
-- ARGV  4, 5, 6, 7, ...  holder, topic
--
-- Returns for each topic "-" when it is another's, "" when nothing is stored, "+" when there is something to tell, else the
-- last entry there is.

local no = refused()
if no then
	return no
end
local out = {}
for i = 4, #ARGV, 2 do
	local q = load(ARGV[i + 1])
	local answer = ''
	if q.holder ~= ARGV[i] then
		answer = '-'
	else
		redis.call('PEXPIRE', q.state, ARGV[2])
		if q.dropped > 0 then
			answer = '+'
		elseif q.n > 0 then
			answer = q.last
		end
	end
	table.insert(out, answer)
end
return out
