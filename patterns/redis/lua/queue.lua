-- queue.lua stands before enqueue, claim, fetch, remove, purge, check and release, below their first line: what is common to
-- all that work on queues of stored messages.
--
-- KEYS  1 {prism:<namespace>}:q:  before a topic: its stream, of entries with i, the message's id, and f, its frame
--       2 {prism:<namespace>}:t:  before a topic: its state, see below
--       3 {prism:<namespace>}:c:  before a process: its lease
--       4 {prism:<namespace>}:d:<maxage>  the depth, see below
-- ARGV  1 maxage   how long a message is stored, in ms
--       2 keep     how long a state is kept that nobody touches, in ms
--       3 publish  "PUBLISH" or "SPUBLISH"
--
-- A state is a hash: n messages and b bytes are stored, s was the last entry ever, each message has a field m<id> with
-- "<entry> <bytes>", d messages became too old and nobody was told yet; h is the holder, if any, y the last entry that one was
-- given, w says that somebody stands by for the topic. It is there while it says anything. A stream is there while it has
-- entries. A holder is "<process>/<session>/<consumer>.<claim>"; it counts while the lease "<process>/<session>" exists.
--
-- The depth is how many messages are stored in all queues: a hash of slices by the time of their entries, each a 256th of maxage
-- wide. The field of a slice, its number since the epoch, counts those of that time which were neither removed nor purged; it is
-- there while they are more than 0. Nobody counts off what becomes too old: its slice does not count any more, as a whole, and is
-- removed when another one begins, once in 8 widths. The hash expires up to 9 widths after its youngest message. A slice that was
-- lost, or counts what was evicted, is wrong for no longer than maxage. With another maxage the depth begins anew.
--
-- A script checks before its first write that the user may run all of its commands, because Redis undoes nothing.

local streams, states, leases, depth = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000)
-- What was stored before this instant is too old.
local oldest = math.max(at - tonumber(ARGV[1]), 1)

-- may returns nil when the user may run a command, and else what to reply.
local function may(command, ...)
	if not redis.acl_check_cmd(command, ...) then
		return redis.error_reply('NOPERM this needs the right to run ' .. command .. ' on ' .. streams .. ' and its neighbours')
	end
	return nil
end

-- refused returns what to reply when the user may not run one of the commands, and else nil.
local function refused()
	local stream, state, lease = streams .. 'x', states .. 'x', leases .. 'x'
	return may('HMGET', state, 'h') or may('HSET', state, 'h', '') or may('HDEL', state, 'h') or may('PEXPIRE', state, '1')
		or may('DEL', stream, state) or may('XADD', stream, '1-0', 'i', '') or may('XRANGE', stream, '-', '+')
		or may('XDEL', stream, '1-0') or may('XLEN', stream) or may('EXISTS', lease) or may('HINCRBY', depth, '0', '1')
		or may('HGETALL', depth) or may('PTTL', depth) or may(ARGV[3], string.sub(leases, 1, -4) .. ':free', '')
end

-- before tells whether an entry comes before another one.
local function before(a, b)
	local am, as = string.match(a, '^(%d+)%-(%d+)$')
	local bm, bs = string.match(b, '^(%d+)%-(%d+)$')
	am, bm = tonumber(am), tonumber(bm)
	return am < bm or am == bm and tonumber(as) < tonumber(bs)
end

local width = math.ceil(tonumber(ARGV[1]) / 256)
local changed = {}

-- count has one message more in the depth, or -1, which was stored at an instant. It shows with settle.
local function count(ms, n)
	local slice = math.floor(ms / width)
	changed[slice] = (changed[slice] or 0) + n
end

-- forget removes the fields of slices that are too old.
local function forget()
	local fields, old = redis.call('HGETALL', depth), {}
	local first = math.floor(oldest / width)
	for i = 1, math.min(#fields, 1000), 2 do
		if (tonumber(fields[i]) or 0) < first then
			table.insert(old, fields[i])
		end
	end
	if #old > 0 then
		redis.call('HDEL', depth, unpack(old))
	end
end

-- settle writes what was counted.
local function settle()
	for slice, n in pairs(changed) do
		if n ~= 0 then
			local field = string.format('%.0f', slice)
			local now = redis.call('HINCRBY', depth, field, n)
			if now <= 0 then
				redis.call('HDEL', depth, field)
			elseif now == n then
				local left = (slice + 1) * width + ARGV[1] - at
				if redis.call('PTTL', depth) < left then
					forget()
					redis.call('PEXPIRE', depth, string.format('%.0f', left + 8 * width))
				end
			end
		end
	end
end

-- dropAll takes in that no message of a queue is stored any more.
local function dropAll(q)
	redis.call('DEL', q.stream, q.state)
	q.n, q.bytes, q.entry = 0, 0, false
	local fields = {}
	for field, value in pairs({h = q.holder, s = q.last, y = q.yielded, w = q.waiting, d = q.dropped > 0 and q.dropped}) do
		if value and (field == 'd' or q.holder or q.dropped > 0) then
			table.insert(fields, field)
			table.insert(fields, value)
		end
	end
	if #fields > 0 then
		redis.call('HSET', q.state, unpack(fields))
		redis.call('PEXPIRE', q.state, ARGV[2])
	end
end

-- age removes what is too old, and counts it.
local function age(q)
	if tonumber(string.match(q.last, '^%d+')) < oldest then
		q.dropped = q.dropped + q.n
		return dropAll(q)
	end
	local upto = string.format('%.0f', oldest - 1)
	local old = redis.call('XRANGE', q.stream, '-', upto, 'COUNT', 100)
	while #old > 0 do
		local entries, fields, values = {}, {}, {}
		for i, entry in ipairs(old) do
			entries[i], fields[i] = entry[1], 'm' .. entry[2][2]
			if fields[i] == q.field then
				q.entry = false
			end
		end
		values = redis.call('HMGET', q.state, unpack(fields))
		for _, value in ipairs(values) do
			if value then
				q.n, q.bytes, q.dropped = q.n - 1, q.bytes - tonumber(string.match(value, '%d+$')), q.dropped + 1
			end
		end
		redis.call('XDEL', q.stream, unpack(entries))
		redis.call('HDEL', q.state, unpack(fields))
		redis.call('HSET', q.state, 'n', q.n, 'b', q.bytes, 'd', q.dropped)
		old = redis.call('XRANGE', q.stream, '-', upto, 'COUNT', 100)
	end
end

-- load returns the queue of a topic as it is now, with the entry of one of its messages if an id is given.
local function load(topic, id)
	local q = {topic = topic, stream = streams .. topic, state = states .. topic, field = id and 'm' .. id or 'h'}
	local v = redis.call('HMGET', q.state, 'h', 'n', 'b', 'd', 's', 'y', 'w', q.field)
	q.holder, q.n, q.bytes, q.dropped = v[1], tonumber(v[2] or 0), tonumber(v[3] or 0), tonumber(v[4] or 0)
	q.last, q.yielded, q.waiting, q.entry = v[5], v[6], v[7], id and v[8]
	if q.n > 0 then
		age(q)
	end
	return q
end

local processes = {}

-- process returns what to tell the process of a holder, or false when its lease is gone, and the holder's consumer.
local function process(holder)
	local lease, name, session, consumer = string.match(holder, '^((%w+)/(%d+))/(%d+)%.')
	if processes[lease] == nil then
		processes[lease] = redis.call('EXISTS', leases .. lease) == 1 and {name = name, session = session} or false
	end
	return processes[lease], consumer
end

-- publish publishes on one of the namespace's channels.
local function publish(channel, text)
	redis.call(ARGV[3], string.sub(leases, 1, -4) .. channel, text)
end
