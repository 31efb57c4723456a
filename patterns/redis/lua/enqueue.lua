#!lua
-- enqueue.lua stores messages, and tells the holders of their topics. It is refused as a whole when Redis is at maxmemory.
--
-- KEYS, ARGV 1 to 3: see queue.lua
-- ARGV  4 most messages of a topic
--       5 most bytes of a topic
--       6, 7, 8, 9, 10, ...  topic, id, bytes and frame of each message
--
-- Publishes to n:<process> "<session> <number> <consumer> <topic> <consumer> <topic> ...", where the number counts what was
-- published for that lease.
--
-- Returns for each message 0 when it is stored, also if it was before, 1 when there are too many, 2 when there are too many
-- bytes.

local no = refused()
if no then
	return no
end
local messages, bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local out, told, tell = {}, {}, {}
for i = 6, #ARGV, 4 do
	local topic, id, size = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
	local q = load(topic, id)
	local result = 0
	if q.entry then
		result = 0
	elseif q.n >= messages then
		result = 1
	elseif q.bytes + size > bytes then
		result = 2
	else
		local entry, ms = string.format('%.0f-0', at), at
		if q.last and not before(q.last, entry) then
			local n
			ms, n = string.match(q.last, '^(%d+)%-(%d+)$')
			entry = string.format('%s-%.0f', ms, n + 1)
		end
		redis.call('XADD', q.stream, entry, 'i', id, 'f', ARGV[i + 3])
		redis.call('HSET', q.state, 'n', q.n + 1, 'b', q.bytes + size, 's', entry, 'm' .. id, entry .. ' ' .. ARGV[i + 2])
		count(ms, 1)
		redis.call('PEXPIRE', q.stream, ARGV[1] + 1000)
		redis.call('PEXPIRE', q.state, ARGV[2])
		if q.holder and not told[topic] then
			told[topic] = true
			local p, consumer = process(q.holder)
			if p then
				table.insert(p, consumer .. ' ' .. topic)
			end
		end
	end
	table.insert(out, result)
end
settle()
for lease, p in pairs(processes) do
	if p and #p > 0 then
		local number = redis.call('HINCRBY', leases .. lease, 'n', 1)
		publish(':n:' .. p.name, string.format('%s %.0f ', p.session, number) .. table.concat(p, ' '))
	end
end
return out
