#!lua flags=allow-oom
-- lease.lua renews the lease of a process, or begins one.
--
-- KEYS  1 the lease: {prism:<namespace>}:c:<process>/<session>, a hash with n: how much was published for it
-- ARGV  1 ttl    in ms
--       2 begin  "1": begin a new one
--
-- Returns how much was published for it; -1 when it is gone.

if ARGV[2] == '1' then
	redis.call('HSET', KEYS[1], 'n', 0)
elseif redis.call('EXISTS', KEYS[1]) == 0 then
	return {-1}
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {tonumber(redis.call('HGET', KEYS[1], 'n'))}
