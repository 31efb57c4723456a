#!lua flags=no-writes
-- live.lua tells which identities are live: those whose lease ends after now.
--
-- KEYS  1 leases, which names the group of keys
-- ARGV  1 what stands before an encoded name in the key of an identity's hash
--       2, 3, ...  encoded names
--
-- Returns 1 or 0 for each name, in order.

local t = redis.call('TIME')
local at = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for i = 2, #ARGV do
	local e = redis.call('HGET', ARGV[1] .. ARGV[i], 'e')
	out[i - 1] = (e and (e == '0' or at < tonumber(e))) and 1 or 0
end
return out
