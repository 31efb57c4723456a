#!lua flags=no-writes
-- count.lua counts the live identities: those whose lease ends after now.
--
-- KEYS  1 leases
--
-- Returns the number.

local t = redis.call('TIME')
return redis.call('ZCOUNT', KEYS[1], string.format('(%.0f', t[1] * 1000 + math.floor(t[2] / 1000)), '+inf')
