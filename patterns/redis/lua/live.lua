#!lua flags=no-writes
-- live.lua tells which identities are live: see outage.lua.
--
-- KEYS  1 leases, which names the group of keys  2 head
-- ARGV  1 after   how old a mark tells of an outage, in ms
--       2 prefix  what stands before an encoded name in the key of an identity's hash
--       3, 4, ...  encoded names
--
-- Returns 1 or 0 for each name, in order.

local at = now()
outage(KEYS[2], tonumber(ARGV[1]), at)
local out = {}
for i = 3, #ARGV do
	local h = redis.call('HMGET', ARGV[2] .. ARGV[i], 'e', 't')
	out[i - 2] = live(h[1], h[2], at) and 1 or 0
end
return out
