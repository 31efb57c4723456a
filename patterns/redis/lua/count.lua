#!lua flags=no-writes
-- count.lua counts the live identities: see outage.lua.
--
-- KEYS  1 leases  2 head
-- ARGV  1 after   how old a mark tells of an outage, in ms
--       2 prefix  what stands before an encoded name in the key of an identity's hash
--
-- Returns the number.

local at = now()
outage(KEYS[2], tonumber(ARGV[1]), at)
return count(KEYS[1], ARGV[2], at)
