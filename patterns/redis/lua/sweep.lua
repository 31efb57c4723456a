#!lua flags=allow-oom
-- sweep.lua removes identities whose lease has ended, the earliest first, and logs each. It works at maxmemory too. What was
-- registered again or renewed has a later end in leases, so it is not met. Whom an outage has saved gets the end stored that
-- its lease has by now: readers of the log have that from the outage's entry.
--
-- It leaves the mark by which outages are found, even when it may not do the rest: then no outage is to be found for it.
--
-- KEYS, ARGV 1 to 6: see change.lua. The keys of the hashes are ARGV[6] and a name: they share the hash tag of KEYS.
-- ARGV  7 most  identities to look at
--
-- Returns {identities looked at, revision (0: none), since, until of the latest outage (0, 0: none), now}.

-- fresh is how old a mark may be so that there need not be another one, in ms.
local fresh = math.min(500, after / 4)

local refused = mayLog()
if refused then
	return refused
end
local at, revision, before = now(), 0, nil
local registered = redis.call('HGET', head, 'revision')
if outage(head, after, at) then
	revision = extend(at)
	seen, swept = at, since
end

-- mark says that there was a sweep, and whether it has met everything.
local function mark(all)
	local stale = not seen or at < seen or at - seen >= fresh
	if not registered then
		return
	elseif all and (stale or swept ~= seen) then
		redis.call('HSET', head, 'seen', at, 'swept', at)
	elseif stale then
		redis.call('HSET', head, 'seen', at)
	end
end

refused = may('ZRANGE', leases, '0', '1') or may('ZREM', leases, '-') or may('DEL', name .. '-') or may('ZADD', leases, '1', '-')
	or may('HMGET', name .. '-', 'e') or may('HSET', name .. '-', 'e', '') or may('PEXPIREAT', name .. '-', '1')
if refused then
	mark(true)
	return refused
end

local most = tonumber(ARGV[7])
local due = redis.call('ZRANGE', leases, '-inf', string.format('%.0f', at), 'BYSCORE', 'LIMIT', '0', most)
local gone, hashes = {}, {}
for i = 1, #due do
	local key = name .. due[i]
	local h = since and redis.call('HMGET', key, 'e', 't') or {}
	local last = ends(h[1], h[2])
	if at < last then
		local score = last == math.huge and '+inf' or string.format('%.0f', last)
		redis.call('ZADD', leases, score, due[i])
		if last ~= math.huge then
			redis.call('HSET', key, 'e', score)
			keepUntil(key, last, tonumber(h[2]) or 0)
		end
	else
		gone[#gone + 1], hashes[#hashes + 1] = due[i], key
	end
end
if #gone > 0 then
	revision, before = revise(#gone, at)
	redis.call('ZREM', leases, unpack(gone))
	redis.call('DEL', unpack(hashes))
	for i = 1, #gone do
		note(revision + i - 1, i == 1 and before or nil, 'k', 'x', 'i', gone[i])
	end
	revision = revision + #gone - 1
end
mark(#due < most)
return {#due, revision, since or 0, back or 0, at}
