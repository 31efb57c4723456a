#!lua flags=allow-oom
-- fetch.lua reads what is stored for held topics, and notes how far.
--
-- KEYS, ARGV 1 to 3: see queue.lua
-- ARGV  4 most messages to return
--       5 most bytes to return, give or take the message that goes beyond
--       6 most messages of one topic
--       7, 8, 9, 10, ...  holder, the entry that was read last, topic
--
-- Returns a list for each topic: {"-"} when it is another's, {} when it was not looked at because there is enough; else
-- {"+" when there may be more or "." when not, messages that became too old, the last entry that a holder was given before,
-- entry, frame, entry, frame, ...}.

local no = refused()
if no then
	return no
end
local count, bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local out = {}
for i = 7, #ARGV, 3 do
	local row = {}
	if count > 0 and bytes > 0 then
		local q = load(ARGV[i + 2])
		if q.holder ~= ARGV[i] then
			row = {'-'}
		else
			local entries, most = {}, 1
			if q.n > 0 then
				most = math.max(math.min(count, tonumber(ARGV[6]), math.floor(bytes * q.n / (q.bytes + 1))), 1)
				entries = redis.call('XRANGE', q.stream, '(' .. ARGV[i + 1], '+', 'COUNT', most)
				if #entries == 0 and redis.call('XLEN', q.stream) == 0 then -- evicted, or deleted by hand
					q.dropped = q.dropped + q.n
					dropAll(q)
				end
			end
			row = {#entries == most and '+' or '.', q.dropped, q.yielded or '0-0'}
			for _, entry in ipairs(entries) do
				table.insert(row, entry[1])
				table.insert(row, entry[2][4])
				bytes = bytes - #entry[2][4]
			end
			count = count - #entries
			if #entries > 0 and (not q.yielded or before(q.yielded, entries[#entries][1])) then
				redis.call('HSET', q.state, 'y', entries[#entries][1])
			end
			if q.dropped > 0 then
				redis.call('HDEL', q.state, 'd')
			end
		end
	end
	table.insert(out, row)
end
return out
