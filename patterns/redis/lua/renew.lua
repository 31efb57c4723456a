#!lua flags=allow-oom
-- renew.lua restarts the leases of live identities. It works at maxmemory too: all it adds are entries of the capped log, and
-- leases that nobody can renew would only make things worse.
--
-- KEYS, ARGV 1 to 6: see change.lua. The keys of the hashes are ARGV[6] and a name: they share the hash tag of KEYS.
-- ARGV  7, 9, ...   encoded names
--       8, 10, ...  the ttl of each, in ms; -1: never expires; 0: the one it has
--
-- Returns for each name, in order: 1, revision, ttl, expires at (0: never), revision of the registration; or five zeros when the
-- identity is not live.

local at = now()
local found = outage(head, after, at)
local lives, n = {}, 0
for i = 7, #ARGV, 2 do
	local h = redis.call('HMGET', name .. ARGV[i], 'e', 't', 'v')
	if live(h[1], h[2], at) then
		lives[i], n = h, n + 1
	end
end
local out = {}
if n == 0 then
	for i = 1, (#ARGV - 6) / 2 * 5 do
		out[i] = 0
	end
	return out
end
local any = name .. ARGV[7]
local refused = mayLog() or may('ZADD', leases, '1', ARGV[7]) or may('HSET', any, 'e', '') or may('PEXPIREAT', any, '1')
	or may('PERSIST', any)
if refused then
	return refused
end
if found then
	extend(at)
end
local revision, before = revise(n, at)
local scores, ttls = {}, {}
for i = 7, #ARGV, 2 do
	local id, h = ARGV[i], lives[i]
	local o = #out
	if not h then
		out[o + 1], out[o + 2], out[o + 3], out[o + 4], out[o + 5] = 0, 0, 0, 0, 0
	else
		local ttl = ARGV[i + 1]
		if ttl == '0' then
			ttl = ttls[id] or h[2]
		end
		ttls[id] = ttl
		local length, expires, score = tonumber(ttl), 0, '+inf'
		if length >= 0 then
			expires = at + length
			score = expires
		end
		scores[#scores + 1], scores[#scores + 2] = score, id
		redis.call('HSET', name .. id, 'e', expires, 't', ttl)
		if length >= 0 then
			keepUntil(name .. id, expires, length)
		elseif h[1] ~= '0' then
			redis.call('PERSIST', name .. id)
		end
		note(revision, before, 'k', 'r', 'i', id, 't', ttl, 'e', expires)
		out[o + 1], out[o + 2], out[o + 3], out[o + 4], out[o + 5] = 1, revision, length, expires, tonumber(h[3])
		revision, before = revision + 1, nil
	end
end
redis.call('ZADD', leases, unpack(scores))
return out
