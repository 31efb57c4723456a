#!lua flags=allow-oom
-- sweep.lua removes identities whose lease has ended, the earliest first, and logs each. It works at maxmemory too. What was
-- registered again or renewed has a later end in leases, so it is not met.
--
-- KEYS, ARGV 1 to 5: see change.lua. The keys of the hashes are ARGV[5] and a name: they share the hash tag of KEYS.
-- ARGV  6 most  identities to remove
--
-- Returns {identities removed, revision (0: none)}.

local refused = may('ZRANGE', leases, '0', '1')
if refused then
	return refused
end
local most = tonumber(ARGV[6])
local due = redis.call('ZRANGE', leases, '-inf', string.format('%.0f', now()), 'BYSCORE', 'LIMIT', '0', most)
if #due == 0 then
	return {0, 0}
end
local hashes = {}
for i = 1, #due do
	hashes[i] = ARGV[5] .. due[i]
end
refused = mayLog() or may('ZREM', leases, due[1]) or may('DEL', hashes[1])
if refused then
	return refused
end
local revision, before = revise(#due)
redis.call('ZREM', leases, unpack(due))
redis.call('DEL', unpack(hashes))
for i = 1, #due do
	note(revision + i - 1, i == 1 and before or nil, 'k', 'x', 'i', due[i])
end
return {#due, revision + #due - 1}
