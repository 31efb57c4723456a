#!lua
-- put.lua registers identities, in order. It is refused as a whole when Redis is at maxmemory.
--
-- KEYS, ARGV 1 to 6: see change.lua. The keys of the hashes are ARGV[6] and a name: they share the hash tag of KEYS.
-- ARGV  7 limit     most live identities; 0: any number
--       8, 12, ...  encoded names
--       9, 13, ...  metadata, in its stored form
--      10, 14, ...  the ttl of each, in ms; -1: never expires
--      11, 15, ...  "1": not over a live identity
--
-- Returns for each identity, in order: 1, revision, registered at, expires at (0: never); 0, 0, 0, 0 when a live identity is in the
-- way; 2, 0, 0, 0 when the limit is reached. An expired identity that no sweep has met is logged as such first.

local limit = tonumber(ARGV[7])
local at = now()
local found = outage(head, after, at)

-- All is read before anything is written.
local names = {}
for i = 8, #ARGV, 4 do
	names[#names + 1] = ARGV[i]
end
local scores = redis.call('ZMSCORE', leases, unpack(names))
local lives, exists, listed = {}, {}, {} -- by name: as it is after what has been decided so far
for i = 1, #names do
	local id = names[i]
	if exists[id] == nil then
		local old = redis.call('HMGET', name .. id, 'e', 't')
		lives[id], exists[id], listed[id] = live(old[1], old[2], at), old[1] and true or false, scores[i]
	end
end

-- What becomes of each: 1, 0 or 2. overdue: an expired identity of that name, which no sweep has met, is logged first.
local status, overdue, n, others = {}, {}, 0, nil
for i = 1, #names do
	local id = names[i]
	local counted = listed[id] and tonumber(listed[id]) > at
	if lives[id] and ARGV[4 * i + 7] == '1' then
		status[i] = 0
	else
		if limit > 0 and not lives[id] then
			others = others or count(leases, name, at)
			if others >= limit and (not counted or others > limit) then
				status[i] = 2
			end
		end
		if not status[i] then
			status[i], n = 1, n + 1
			if not lives[id] and listed[id] then
				overdue[i], n = true, n + 1
			end
			if others and not lives[id] and not counted then
				others = others + 1
			end
			lives[id], listed[id] = true, '+inf'
		end
	end
end

local out = {}
if n == 0 then
	for i = 1, #names do
		out[4 * i - 3], out[4 * i - 2], out[4 * i - 1], out[4 * i] = status[i], 0, 0, 0
	end
	return out
end
local any = name .. names[1]
local refused = mayLog() or may('ZADD', leases, '1', names[1]) or may('HSET', any, 'm', '') or may('PEXPIREAT', any, '1')
	or may('PERSIST', any)
if refused then
	return refused
end
if found then
	extend(at)
end
local revision, before = revise(n, at)
local ended = {}
for i = 1, #names do
	local o = #out
	if status[i] ~= 1 then
		out[o + 1], out[o + 2], out[o + 3], out[o + 4] = status[i], 0, 0, 0
	else
		local id, metadata, ttl = names[i], ARGV[4 * i + 5], ARGV[4 * i + 6]
		local key, length, expires, score = name .. id, tonumber(ttl), 0, '+inf'
		if length >= 0 then
			expires = at + length
			score = expires
		end
		if overdue[i] then
			note(revision, before, 'k', 'x', 'i', id)
			revision, before = revision + 1, nil
		end
		redis.call('HSET', key, 'm', metadata, 't', ttl, 'r', at, 'e', expires, 'v', revision)
		if length >= 0 then
			keepUntil(key, expires, length)
		elseif exists[id] then
			redis.call('PERSIST', key)
		end
		exists[id] = true
		ended[#ended + 1], ended[#ended + 2] = score, id
		note(revision, before, 'k', 'p', 'i', id, 'm', metadata, 't', ttl, 'r', at, 'e', expires)
		out[o + 1], out[o + 2], out[o + 3], out[o + 4] = 1, revision, at, expires
		revision, before = revision + 1, nil
	end
end
redis.call('ZADD', leases, unpack(ended))
return out
